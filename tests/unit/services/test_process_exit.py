"""`services.process_exit`: reasons, output states, signal names."""

from __future__ import annotations

import signal

import pytest

from coworkd.model.launch import Exited
from coworkd.model.process import Exit, ExitReason
from coworkd.services.process_exit import judge_exit, judge_output, signal_name
from coworkd.services.spools import Spool
from coworkd.system import spool_file
from tests.unit.services.fake_launcher import RUSAGE


def exited(
    code: int | None = None, number: int | None = None, *, oom: int = 0, killed: bool = False, inferred: bool = False
) -> Exited:
    return Exited(
        process="one", code=code, signal=number, inferred=inferred, killed=killed, oom_kills=oom, rusage=RUSAGE, at=1.0
    )


@pytest.mark.parametrize(
    ("notice", "ended_by", "expected"),
    [
        (exited(0), None, Exit(code=0, signal=None, reason="exited")),
        (exited(255), None, Exit(code=255, signal=None, reason="exited")),
        (exited(None, 11), None, Exit(code=None, signal="SEGV", reason="signaled")),
        (exited(None, 9), None, Exit(code=None, signal="KILL", reason="signaled")),
        (exited(None, 9, oom=1), None, Exit(code=None, signal="KILL", reason="oom")),
        (exited(None, 15, oom=1), None, Exit(code=None, signal="TERM", reason="signaled")),
        (exited(0, oom=1), None, Exit(code=0, signal=None, reason="exited")),
        (exited(None, 9, killed=True), None, Exit(code=None, signal="KILL", reason="killed")),
        (exited(None, 9, oom=1), "timeout", Exit(code=None, signal="KILL", reason="timeout")),
        (exited(0), "killed", Exit(code=0, signal=None, reason="killed")),
        (exited(None, 9, inferred=True), None, Exit(code=None, signal="KILL", reason="signaled", inferred=True)),
    ],
)
def test_judge_exit_tells_what_ended_it(notice: Exited, ended_by: ExitReason | None, expected: Exit) -> None:
    assert judge_exit(notice, ended_by) == expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([(True, False), (True, False)], "complete"),
        ([(True, False), (True, True)], "truncated"),
        ([(False, False), (True, False)], "still_open"),
        ([(False, False), (True, True)], "still_open"),
    ],
)
def test_judge_output_looks_at_every_stream(states: list[tuple[bool, bool]], expected: str) -> None:
    spools = []
    for eof, lost in states:
        spool = Spool(spool_file.create("test"))
        spool.eof, spool.lost = eof, lost
        spools.append(spool)
    assert judge_output(spools) == expected
    for spool in spools:
        spool.close()


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (15, "TERM"),
        (9, "KILL"),
        (signal.SIGRTMIN, "RTMIN"),
        (signal.SIGRTMIN + 2, "RTMIN+2"),
        (signal.SIGRTMAX, "RTMAX"),
        (33, "33"),
    ],
)
def test_signal_name_is_the_kernels_without_sig(number: int, name: str) -> None:
    assert signal_name(number) == name
