"""Which commands ran a moment ago: for what is told of a process that is gone by the time anybody asks.

The last `KEPT` that have ended are remembered, one-shots included. A question about a time before them is not answered. The pid of a
sandbox's init is remembered for `INIT_S`, less than it takes until another process has the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from coworkd.model.process import ExitRecord

KEPT = 256
INIT_S = 10.0
SLACK_S = 0.05
"""How far the clocks of two programs that tell of the same moment may lie apart."""


class RecentProcesses:
    """Commands that have ended, newest last."""

    def __init__(self, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ended: deque[ExitRecord] = deque(maxlen=kept)
        self._inits: deque[tuple[int, ExitRecord]] = deque(maxlen=kept)
        self._known_since = 0.0
        """Of what ended before this time some are forgotten."""

    def add(self, record: ExitRecord, init_pid: int | None = None) -> None:
        if len(self._ended) == self._ended.maxlen:
            self._known_since = max(self._known_since, self._ended[0].ended_at)
        self._ended.append(record)
        if init_pid is not None:
            self._inits.append((init_pid, record))

    def find_by_init(self, init_pid: int) -> tuple[str, str] | None:
        """The session and process whose sandbox had this init a moment ago."""
        found = [record for pid, record in self._inits if pid == init_pid]
        if not found or self._clock() - found[-1].ended_at > INIT_S:
            return None
        return found[-1].session, found[-1].process

    def only_one_at(self, session: str, at: float, running: Iterable[tuple[str, float]]) -> str | None:
        """The one process of `session` that ran at `at`, of `running` (id, started_at) and those that have ended."""
        if at < self._known_since + SLACK_S:
            return None
        found = {id for id, started_at in running if started_at <= at + SLACK_S}
        found |= {
            record.process
            for record in self._ended
            if record.session == session and record.started_at - SLACK_S <= at <= record.ended_at + SLACK_S
        }
        return found.pop() if len(found) == 1 else None
