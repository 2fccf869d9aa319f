"""How a command ended → the exit status of `coworkctl`, and what is said about it. Pure.

| ended by | status |
|---|---|
| its own exit | that status |
| signal n | 128+n |
| `--timeout` | 124, as timeout(1) |
| out of memory | 137, as the SIGKILL it is |
| could not be started: no such command | 127 |
| could not be started: not executable | 126 |
| anything else of ours, a lost link, a lost process | 125 |
"""

from __future__ import annotations

import signal

from coworkd.model.errors import CoworkError, StartFailed
from coworkd.model.process import ExitRecord

FAILURE_STATUS = 125
NOT_EXECUTABLE_STATUS = 126
NOT_FOUND_STATUS = 127
TIMEOUT_STATUS = 124


def status_of(record: ExitRecord) -> int:
    """The exit status that stands for `record`."""
    if record.exit.reason == "timeout":
        return TIMEOUT_STATUS
    if record.exit.code is not None:
        return record.exit.code
    if record.exit.signal is not None:
        return 128 + signal_number(record.exit.signal)
    return FAILURE_STATUS


def remark_on(record: ExitRecord) -> str | None:
    """What a person should know beside the status; None where the status says it all."""
    remarks = []
    if record.exit.reason == "timeout":
        remarks.append(f"the command ran into its time limit after {record.ended_at - record.started_at:.1f} s")
    if record.exit.reason == "oom":
        remarks.append(_explain_oom(record))
    if record.exit.reason == "killed":
        remarks.append("the command was killed, with all it had started")
    if record.exit.reason == "lost":
        remarks.append("how the command ended is not known: its launcher was lost")
    if record.output == "truncated":
        remarks.append("part of its output was dropped")
    return "; ".join(remarks) or None


def _explain_oom(record: ExitRecord) -> str:
    """Whose limit it was, where the kernel has told."""
    end = record.exit
    whose = {
        "process": "the command",
        "session": f"session {record.session}",
        "guest": "all sessions of the guest together",
    }
    if end.scope is None:
        return "killed: out of memory (see: coworkctl policy show)"
    if end.limit_bytes is None:
        return "killed: out of memory: the guest had none left"
    return f"killed: out of memory: {whose[end.scope]} reached {end.limit_bytes / (1 << 20):.0f} MiB"


def failure_status(error: CoworkError) -> int:
    """The exit status of a command that could not be started or followed."""
    if isinstance(error, StartFailed):
        stages = {"not_found": NOT_FOUND_STATUS, "not_executable": NOT_EXECUTABLE_STATUS}
        return stages.get(str(error.details.get("stage")), FAILURE_STATUS)
    return FAILURE_STATUS


def signal_number(name: str) -> int:
    """9 for `"SIGKILL"` and `"KILL"`; real-time and unknown signals by their number, or 0."""
    spelled = name if name.startswith("SIG") else f"SIG{name}"
    if spelled in signal.Signals.__members__:
        return int(signal.Signals[spelled])
    digits = name.rpartition("+")[2].removeprefix("SIG")
    base = int(signal.SIGRTMIN) if name.startswith(("SIGRTMIN+", "RTMIN+")) else 0
    return base + int(digits) if digits.isdigit() else 0
