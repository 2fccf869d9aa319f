"""Which commands ran a moment ago: for what is told of a process that is gone by the time anybody asks.

The last `KEPT` that have ended are remembered, one-shots included. A question about a time before them is not answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from coworkd.model.process import ExitRecord

KEPT = 256
SLACK_S = 0.05
"""How far the clocks of two programs that tell of the same moment may lie apart."""


class RecentProcesses:
    """Commands that have ended, newest last."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ended: deque[ExitRecord] = deque(maxlen=kept)
        self._known_since = 0.0
        """Of what ended before this time some are forgotten."""

    def add(self, record: ExitRecord) -> None:
        if len(self._ended) == self._ended.maxlen:
            self._known_since = max(self._known_since, self._ended[0].ended_at)
        self._ended.append(record)

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
