"""One part of a report, and what an audit log looks like."""

from __future__ import annotations

from typing import Any

from coworkd.model.errors import Unavailable
from coworkd.services.report_part import AUDIT_SHAPE, Part, collect, shape_of
from coworkd.services.report_redact import Redactor, prose, tree
from coworkd.services.report_words import Words


def redactor(**more: Any) -> Redactor:
    return Redactor(Words({"the", "disk", "is", "away"}), **more)


def fail(error: Exception) -> Any:
    raise error


def test_a_part_that_cannot_be_had_is_missing_with_its_reason_scrubbed() -> None:
    lost = Part("x.json", "x", lambda: fail(Unavailable("the disk /home/alice is away")), tree)
    assert collect(lost, redactor()) == (None, "UNAVAILABLE: the disk [removed] is away")
    denied = Part("x.json", "x", lambda: fail(PermissionError(13, "alice is away", "/home/alice")), tree)
    assert collect(denied, redactor()) == (None, "[removed] is away")
    assert collect(Part("x.json", "x", lambda: "the disk", prose), redactor()) == ("the disk", None)


RECORDS: list[dict[str, Any]] = [
    {"seq": 1, "at": 1.0, "kind": "daemon.start", "version": "1.0", "pid": 7, "endpoints": ["unix:///home/alice/s"]},
    {"seq": 2, "at": 2.0, "kind": "daemon.start", "version": "1.0", "pid": 8},
    {
        "seq": 3,
        "at": 3.0,
        "kind": "process.start",
        "session": "payroll",
        "process": "p-1",
        "argv": ["deploy", "hunter2"],
        "cwd": "/home/alice",
        "env_names": ["HUNTER2"],
        "prev": "00",
        "hash": "11",
    },
    {"seq": 4, "at": 4.0, "kind": "daemon.stop", "reason": "the disk is away"},
    {"seq": 5, "at": 5.0, "kind": "daemon.start", "version": "1.0", "pid": 9},
]
VERIFIED = {"ok": True, "records": 5, "first": 1, "last": 5, "head": "ab" * 32, "problem": None}


def test_starts_that_had_no_end_are_told() -> None:
    shape = shape_of(RECORDS, VERIFIED)
    assert shape["starts_without_an_end"] == [1.0]  # the last one lives
    assert shape["kinds_of_the_last"] == {"daemon.start": 3, "process.start": 1, "daemon.stop": 1}


def test_records_tell_when_and_what_and_not_of_whom() -> None:
    by = redactor()
    copied = AUDIT_SHAPE(by, shape_of(RECORDS, VERIFIED))
    assert copied["verified"] == VERIFIED
    assert copied["last"][2] == {
        "seq": 3,
        "at": 3.0,
        "kind": "process.start",
        "session": by.pseudonym("payroll"),
        "process": by.pseudonym("p-1"),
        "argv": "[removed]",
        "cwd": "[removed]",
    }
    for secret in ("alice", "hunter2", "HUNTER2", "payroll", "deploy"):
        assert secret not in str(copied)


def test_commands_are_told_where_they_were_asked_for_and_names_of_variables_never() -> None:
    copied = AUDIT_SHAPE(redactor(with_commands=True), shape_of(RECORDS, VERIFIED))
    assert copied["last"][2]["argv"] == ["deploy", "hunter2"]
    assert "HUNTER2" not in str(copied)
