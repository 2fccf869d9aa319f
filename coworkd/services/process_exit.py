"""How a process ended: the launcher's notice and what we did, judged into one `Exit`.

Rules
- What ended it on our side comes first (`timeout`, `killed`): such a command may well return 0 from its TERM handler, or
  have lost a child to the OOM killer earlier.
- `oom` is SIGKILL with an oom_kill counted in its cgroup, when nobody of ours killed it; with it is said whose limit that was.
- A launcher that is gone tells nothing: `lost`, with neither code nor signal.

Pure. Sources: signal(7), cgroup v2 memory.events.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from coworkd.model.launch import Exited
from coworkd.model.process import Exit, ExitReason, OutputState
from coworkd.services.spools import Spool

LOST = Exit(code=None, signal=None, reason="lost")


def judge_exit(exited: Exited, ended_by: ExitReason | None) -> Exit:
    """`ended_by` is what we did to end it, None where we did nothing."""
    refused = exited.pids_refused or None
    if exited.signal is None:
        reason = ended_by or "exited"
        return Exit(code=exited.code, signal=None, reason=reason, inferred=exited.inferred, pids_refused=refused)
    reason = ended_by or _signal_reason(exited)
    oom = exited.oom if reason == "oom" else None
    return Exit(
        code=None,
        signal=signal_name(exited.signal),
        reason=reason,
        inferred=exited.inferred,
        scope=None if oom is None else oom.scope,
        limit_bytes=None if oom is None else oom.limit_bytes,
        peak_bytes=None if oom is None else oom.peak_bytes,
        pids_refused=refused,
    )


def _signal_reason(exited: Exited) -> ExitReason:
    if exited.signal == signal.SIGKILL and exited.oom_kills:
        return "oom"
    return "killed" if exited.killed else "signaled"


def judge_output(streams: Iterable[Spool]) -> OutputState:
    """`still_open` where a stream has not ended, else `truncated` where one lost bytes, or all went, else `complete`."""
    output: OutputState | None = None
    for spool in streams:
        if not spool.eof:
            return "still_open"
        if spool.lost:
            output = "truncated"
        output = output or "complete"
    return output or "truncated"


def signal_name(number: int) -> str:
    """The name without SIG: 15 is `TERM`, 36 is `RTMIN+2`; a number nobody named stays a number."""
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"RTMIN+{number - signal.SIGRTMIN}"
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)
