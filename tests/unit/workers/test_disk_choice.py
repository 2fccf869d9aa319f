"""Which disk is the session disk."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.workers.disk_choice import Candidate, Plan, Refused, choose, plan
from coworkd.workers.disk_probe import Content
from coworkd.workers.disk_superblock import Superblock
from tests.unit.workers.disk_fakes import disk

LABEL = "cowork-sessions"
OURS = Superblock(label=LABEL, uuid="", size_bytes=1, block_bytes=4096, mounted_at=1, group=0, quota=False, errors=0)


def candidate(name: str, what: Any, *, busy: str = "", detail: str = "", **fields: object) -> Candidate:
    found = OURS if what in ("ours", "damaged", "cut") else None
    return Candidate(disk=disk(name, **fields), content=Content(what=what, detail=detail, superblock=found), busy=busy)


def refusal(*candidates: Candidate) -> Refused:
    with pytest.raises(Refused) as caught:
        plan(choose(candidates, LABEL))
    return caught.value


def test_the_one_of_the_serial_number_is_taken_before_blank_ones() -> None:
    found = choose([candidate("vdb", "blank"), candidate("vdc", "blank", serial=LABEL)], LABEL)
    assert found.disk.name == "vdc"
    assert plan(found) == Plan(action="format")


def test_the_one_of_the_label_is_taken_and_checked() -> None:
    found = choose([candidate("vdb", "blank"), candidate("vdc", "ours")], LABEL)
    assert found.disk.name == "vdc"
    assert plan(found) == Plan(action="check")


def test_a_damaged_one_is_checked_by_its_copy() -> None:
    content = Content(what="damaged", superblock=OURS, backup=128)
    assert plan(Candidate(disk=disk(), content=content)) == Plan(action="check", backup=128)


@pytest.mark.parametrize("what", ["blank", "begun"])
def test_the_only_blank_one_is_taken(what: str) -> None:
    others = [candidate("vdc", "foreign"), candidate("sda", "blank", removable=True)]
    found = choose([candidate("vdb", what), *others], LABEL)
    assert (found.disk.name, plan(found)) == ("vdb", Plan(action="format"))


def test_of_two_blank_ones_none_is_taken_and_both_are_named() -> None:
    refused = refusal(candidate("vdb", "blank"), candidate("vdc", "blank"))
    assert "/dev/vdb, /dev/vdc" in refused.reason
    assert not refused.none_there


def test_of_two_that_are_called_so_none_is_taken_and_both_are_named() -> None:
    refused = refusal(candidate("vdb", "blank", serial=LABEL), candidate("vdc", "ours"))
    assert "2 disks are called" in refused.reason
    assert "/dev/vdb, /dev/vdc" in refused.reason


@pytest.mark.parametrize(
    "fields", [{"removable": True}, {"read_only": True}, {"users": ("vdb1",)}, {"busy": "it is mounted on /data"}]
)
def test_a_blank_one_that_may_not_be_meant_is_none(fields: dict[str, Any]) -> None:
    assert refusal(candidate("vdb", "blank", **fields)).none_there


def test_where_there_is_none_what_was_looked_at_is_told() -> None:
    refused = refusal(
        candidate("vdb", "foreign", detail="xfs signature"), candidate("vdc", "unreadable", busy="it is mounted on /x")
    )
    assert "vdb: xfs signature; vdc: it is mounted on /x" in refused.reason
    assert refused.none_there
    assert "there is no other disk" in refusal().reason


@pytest.mark.parametrize(
    ("what", "said"),
    [("foreign", "by hand"), ("unreadable", "kernel's log"), ("small", "bigger"), ("cut", "give it back its size")],
)
def test_one_that_is_called_so_but_is_neither_blank_nor_ours_is_left_alone(what: str, said: str) -> None:
    refused = refusal(candidate("vdb", what, serial=LABEL, detail="found this"))
    assert "left as it is: found this" in refused.reason
    assert said in refused.reason
    assert not refused.none_there


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"busy": "it is mounted on /x"}, "in use: it is mounted on /x"),
        ({"read_only": True}, "read-only"),
        ({"users": ("dm-0",)}, "in use by dm-0"),
    ],
)
def test_one_that_is_called_so_but_cannot_be_written_is_refused(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(candidate("vdb", "blank", serial=LABEL, **fields)).reason
