from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.workers.stage_baseline import UNKNOWN, Baseline, take_baseline
from coworkd.workers.stage_entries import Ident, ident_of
from coworkd.workers.stage_room import wait_for_tick
from coworkd.workers.stage_tree import Tree
from tests.unit.workers.staged_folder import no_step


class Place:
    def __init__(self, top: Path) -> None:
        self.source = top / "source"
        self.source.mkdir()
        self.stage = top / "stage"
        self.stage.mkdir()
        self.fd = os.open(self.stage, os.O_RDONLY)

    def take(self, *, limit: int = 1000, began_ns: int | None = None) -> tuple[int, bool]:
        began_ns = wait_for_tick() if began_ns is None else began_ns
        with Tree(os.open(self.source, os.O_RDONLY)) as tree:
            return take_baseline(tree, self.fd, began_ns=began_ns, step=no_step, limit=limit)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    os.close(made.fd)


def test_a_baseline_knows_each_entry_and_that_others_were_not_there(place: Place) -> None:
    names = ["a", "a.b", "b", "x" * 255, os.fsdecode(b"\xff\n")]
    for name in names:
        (place.source / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    (place.source / "d").mkdir()
    (place.source / "d" / "e").write_bytes(b"e")
    assert place.take() == (len(names) + 2, True)
    baseline = Baseline.open(place.fd)
    for name in [*names, "d", "d/e"]:
        assert baseline.find(os.fsencode(name)) == ident_of((place.source / name).lstat())
    assert [baseline.find(path) for path in (b"", b"c", b"d/f", b"zz")] == [None] * 4
    baseline.close()


def test_an_empty_source_has_an_empty_baseline(place: Place) -> None:
    assert place.take() == (0, True)
    baseline = Baseline.open(place.fd)
    assert baseline.find(b"a") is None
    baseline.close()


def test_what_finds_no_room_is_unknown(place: Place) -> None:
    for name in ("a", "b", "c"):
        (place.source / name).touch()
    assert place.take(limit=2) == (2, False)
    baseline = Baseline.open(place.fd)
    assert isinstance(baseline.find(b"a"), Ident)
    assert (baseline.find(b"c"), baseline.find(b"zz")) == (UNKNOWN, UNKNOWN)
    baseline.close()


def test_what_was_changed_before_it_was_looked_at_is_unknown(place: Place) -> None:
    began_ns = time.time_ns() - 10**9
    (place.source / "a").touch()
    assert place.take(began_ns=began_ns) == (1, True)
    baseline = Baseline.open(place.fd)
    assert (baseline.find(b"a"), baseline.find(b"b")) == (UNKNOWN, None)
    baseline.close()


@pytest.mark.parametrize(
    "data", [None, b"", b"something else", b"coworkd-baseline 1\n\x01\xff\xff\xff\xff\xff\xff\xff\x00"]
)
def test_one_that_is_none_of_ours_knows_nothing(place: Place, data: bytes | None) -> None:
    if data is not None:
        (place.stage / "baseline").write_bytes(data)
    baseline = Baseline.open(place.fd)
    assert baseline.find(b"a") == UNKNOWN
    baseline.close()


def test_a_damaged_one_is_no_reason_to_fail(place: Place) -> None:
    for number in range(20):
        (place.source / f"{number:02}").touch()
    place.take()
    path = place.stage / "baseline"
    data = bytearray(path.read_bytes())
    for offset in range(0, len(data), 7):
        path.write_bytes(data[:offset] + b"\xaa" * 3 + data[offset + 3 :])
        baseline = Baseline.open(place.fd)
        baseline.find(b"07")
        baseline.close()


def test_a_new_one_replaces_the_old_one_whole(place: Place) -> None:
    (place.source / "a").touch()
    place.take()
    (place.source / "b").touch()
    place.take()
    assert os.listdir(place.stage) == ["baseline"]
