"""Exit statuses."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_exit import failure_status, remark_on, signal_number, status_of
from coworkd.model.errors import NotFound, StartFailed, Unavailable
from coworkd.model.process import Exit, ExitRecord


def record(output: Any = "complete", **exit_fields: Any) -> ExitRecord:
    return ExitRecord(
        process="p",
        session="s",
        exit=Exit(**{"code": None, "signal": None, "reason": "exited", **exit_fields}),
        output=output,
        bytes={},
        rusage=None,
        started_at=10.0,
        ended_at=12.5,
    )


@pytest.mark.parametrize(
    ("exit_fields", "status"),
    [
        ({"code": 0}, 0),
        ({"code": 42}, 42),
        ({"code": 255}, 255),
        ({"signal": "SIGKILL", "reason": "signaled"}, 137),
        ({"signal": "TERM", "reason": "killed"}, 143),
        ({"signal": "SIGKILL", "reason": "oom"}, 137),
        ({"signal": "SIGKILL", "reason": "timeout"}, 124),
        ({"reason": "lost"}, 125),
    ],
)
def test_status_of_an_end(exit_fields: dict[str, Any], status: int) -> None:
    assert status_of(record(**exit_fields)) == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StartFailed("x", stage="not_found"), 127),
        (StartFailed("x", stage="not_executable"), 126),
        (StartFailed("x", stage="bad_cwd"), 125),
        (Unavailable("x"), 125),
        (NotFound("no such session"), 125),
    ],
)
def test_status_of_a_failure(error: Any, status: int) -> None:
    assert failure_status(error) == status


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (record(code=0), None),
        (record(signal="SIGKILL", reason="timeout"), "2.5 s"),
        (record(signal="SIGKILL", reason="oom"), "memory"),
        (
            record(signal="SIGKILL", reason="oom", scope="session", limit_bytes=512 << 20, peak_bytes=512 << 20),
            "out of memory: session s reached 512 MiB",
        ),
        (record(signal="SIGKILL", reason="oom", scope="process", limit_bytes=1 << 20), "the command reached 1 MiB"),
        (record(signal="SIGKILL", reason="oom", scope="guest", limit_bytes=1 << 30), "all sessions of the guest"),
        (record(signal="SIGKILL", reason="oom", scope="guest"), "the guest had none left"),
        (record(reason="lost"), "not known"),
        (record("truncated", code=0), "dropped"),
    ],
)
def test_what_the_status_does_not_tell_is_said(made: ExitRecord, says: str | None) -> None:
    remark = remark_on(made)
    assert remark is None if says is None else says in (remark or "")


@pytest.mark.parametrize(("name", "number"), [("SIGINT", 2), ("KILL", 9), ("SIG64", 64), ("SIGRTMIN+1", 35), ("?", 0)])
def test_signal_number(name: str, number: int) -> None:
    assert signal_number(name) == number
