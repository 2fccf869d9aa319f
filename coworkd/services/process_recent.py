"""Which commands ran a moment ago: for what is told of a process that is gone by the time anybody asks.

The last `KEPT` that have ended are remembered, one-shots included. A question about a time before them is not answered. The pids that
stood above a command are remembered for `ANCESTOR_S`, whatever the clock is set to meanwhile: less than it takes until another process has
the same, unless somebody forks for that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from coworkd.model.process import ExitRecord

KEPT = 256
ANCESTOR_S = 10.0
SLACK_S = 0.05
"""How far the clocks of two programs that tell of the same moment may lie apart."""


class RecentProcesses:
    """Commands that have ended, newest last."""

    def __init__(
        self, kept: int = KEPT, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._ended: deque[ExitRecord] = deque(maxlen=kept)
        self._above: deque[tuple[tuple[int, ...], ExitRecord, float]] = deque(maxlen=kept)
        self._known_since = 0.0
        """Of what ended before this time some are forgotten."""

    def add(self, record: ExitRecord, ancestors: tuple[int, ...] = ()) -> None:
        if len(self._ended) == self._ended.maxlen:
            self._known_since = max(self._known_since, self._ended[0].ended_at)
        self._ended.append(record)
        if ancestors and self._clock() - record.ended_at <= ANCESTOR_S:  # an adopted one may have ended long ago
            self._above.append((ancestors, record, self._monotonic()))

    def find_by_ancestor(self, pid: int) -> tuple[str, str] | None:
        """The session and process in whose sandbox everything had this ancestor a moment ago."""
        since = self._monotonic() - ANCESTOR_S
        found = [record for ancestors, record, at in self._above if pid in ancestors and at >= since]
        return (found[-1].session, found[-1].process) if found else None

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
