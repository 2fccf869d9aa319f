"""Kinds: what is not listed is refused."""

from __future__ import annotations

import msgspec
import pytest

from coworkd.auditlog import fields
from coworkd.auditlog.chain import LINE_LIMIT_BYTES, Head, append_record, check_line
from coworkd.auditlog.kinds import KINDS, admit
from coworkd.model.errors import InternalError
from coworkd.model.policy import LimitsPolicy, LimitsRequest
from coworkd.model.process import Exit, Rusage
from coworkd.model.session import FailedFolder, FolderGrant
from tests.unit.call_count import count_calls

CHAIN_KEYS = {"seq", "at", "boot", "kind", "prev", "hash"}


def test_admit_writes_in_the_order_of_the_table() -> None:
    admitted = admit("process.start", {"uid": 1001, "argv": [b"true"], "process": "p", "session": "s"})
    assert list(admitted) == ["session", "process", "argv", "uid"]


def test_admit_leaves_none_out() -> None:
    assert admit("process.start", {"session": "s", "cwd": None}) == {"session": "s"}


def test_admit_calls_nothing_for_each_number_of_a_map() -> None:
    one = {"session": "s", "limits": {"nofile": 1}}
    many = {"session": "s", "limits": dict.fromkeys(LimitsPolicy.__struct_fields__, 1.5)}
    assert count_calls(lambda: admit("process.start", many)) == count_calls(lambda: admit("process.start", one))


def test_admit_refuses_an_unknown_kind_with_the_nearest() -> None:
    with pytest.raises(InternalError, match=r"did you mean 'process\.start'"):
        admit("proces.start", {})


@pytest.mark.parametrize("name", ["env", "stdin_data", "token", "hash", "seq"])
def test_admit_refuses_a_field_that_is_not_listed(name: str) -> None:
    with pytest.raises(InternalError, match="not listed"):
        admit("process.start", {name: "x"})


def test_admit_refuses_a_wrong_type_and_names_the_field() -> None:
    with pytest.raises(InternalError, match=r"'uid' of 'process\.start' must be an integer"):
        admit("process.start", {"uid": "root"})


def test_admit_tells_a_cut_beside_its_field() -> None:
    admitted = admit("process.start", {"argv": [b"x" * 100_000]})
    assert admitted["argv"] == []
    assert admitted["argv_cut"]["bytes"] == 100_000


def test_no_kind_has_a_field_for_what_must_stay_secret() -> None:
    names = {name for table in KINDS.values() for name in table}
    assert not names & {"env", "environment", "stdin", "stdout", "stderr", "data", "input", "token", "content"} - {
        "stdin"
    }
    assert admit("process.start", {"stdin": True}) == {"stdin": True}
    with pytest.raises(InternalError):
        admit("process.start", {"stdin": b"secret"})


def test_no_field_shadows_a_key_of_the_chain() -> None:
    assert not [kind for kind, table in KINDS.items() if CHAIN_KEYS & set(table)]


WORST: dict[object, object] = {
    fields.text: "\x01" * 10_000,
    fields.texts: ["\x01" * 100] * 1000,
    fields.signal: "\x01" * 10_000,
    fields.flag: True,
    fields.integer: 2**63,
    fields.number: 1.1e-300,
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_longest_record_of_a_kind_is_a_line_that_checks(kind: str) -> None:
    table = {"session": fields.text, "process": fields.text, "link": fields.text, **KINDS[kind]}
    worst = {name: WORST[rule] for name, rule in table.items() if rule in WORST}
    line, head = append_record(Head(), kind, admit(kind, worst), at=1.0, boot="b")
    assert check_line(line)[1] == head.hash
    assert len(line) < LINE_LIMIT_BYTES * 3 // 4


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("process.exit", "exit", Exit(code=None, signal="KILL", reason="killed", inferred=True)),
        (
            "process.exit",
            "rusage",
            Rusage(
                user_s=0.1,
                system_s=0.2,
                max_rss_bytes=1,
                minor_faults=2,
                major_faults=3,
                voluntary_switches=4,
                involuntary_switches=5,
            ),
        ),
        (
            "process.start",
            "limits",
            LimitsPolicy(
                memory_max_bytes=1,
                memory_high_bytes=1,
                swap_max_bytes=0,
                pids_max=2,
                cpu_max=4.0,
                cpu_weight=100,
                io_weight=100,
                tmp_max_bytes=3,
                disk_max_bytes=4,
                nofile=5,
                fsize_max_bytes=0,
                cpu_time_s=0,
                core_max_bytes=0,
                timeout_s=0.0,
            ),
        ),
        (
            "session.create",
            "limits",
            LimitsRequest(memory_max=1, pids_max=2, cpu_max=1.5, tmp_max=3, disk_max=4, nofile=5),
        ),
    ],
)
def test_the_types_of_the_model_are_written_whole(kind: str, field: str, value: msgspec.Struct) -> None:
    whole = {name: item for name, item in msgspec.structs.asdict(value).items() if item is not None}
    assert admit(kind, {field: value}) == {field: whole}


def test_folders_are_written_with_what_failed() -> None:
    fields = {
        "folders": (FolderGrant(name="src", source="/home/me/src", mode="ro"),),
        "failed_folders": (FailedFolder(name="out", error="gone"),),
    }
    assert admit("session.ensure", fields) == {
        "folders": [{"name": "src", "source": "/home/me/src", "mode": "ro", "required": True}],
        "failed_folders": [{"name": "out", "error": "gone"}],
    }
