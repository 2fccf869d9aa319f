"""Bounds of the process service, and what of them the descriptors there are can hold.

Pure.
"""

from __future__ import annotations

from msgspec import Struct, structs

from coworkd.config import FinishedConfig, SpoolConfig


class ProcessLimits(Struct, frozen=True, kw_only=True):
    """Bounds of the service."""

    running: int = 512
    start_s: float = 30.0
    """A `start` whose exec is not known by then is killed, and fails. Long enough for one of 200 at once where no core is to spare."""
    grace_s: float = 5.0
    spool: SpoolConfig = SpoolConfig()
    finished: FinishedConfig = FinishedConfig()


_RUNNING_DESCRIPTORS, _ENDED_DESCRIPTORS = 11, 5
"""What a process holds in the launcher, which has as many as we have and holds more: while it starts, and when it has ended."""
_OTHER_DESCRIPTORS = 256
"""Links, logs and the moment's needs."""


def fit_descriptors(limits: ProcessLimits, nofile: int) -> ProcessLimits:
    """`limits`, lowered to what `nofile` descriptors can hold: without one to take what the launcher sends, every command is lost."""
    room = max(0, nofile - _OTHER_DESCRIPTORS)
    running = min(limits.running, max(1, room // 2 // _RUNNING_DESCRIPTORS))
    ended = max(1, (room - running * _RUNNING_DESCRIPTORS) // _ENDED_DESCRIPTORS)
    kept = structs.replace(limits.finished, keep_count=min(limits.finished.keep_count, ended))
    return structs.replace(limits, running=running, finished=kept)
