"""The pulse of the loop that answers hosts: that it turns, how late it was, since when there was nothing to do, and the newest counts.

Rules
- The loop writes, any thread reads. Each value is replaced whole, by one assignment: nobody sees half of one.
- To live is not to work: a loop that is busy is late, one that hangs does not turn, and a guest that idles does neither. The three are told
  apart, by CLOCK_MONOTONIC.
- What counts as work: a request that wants something of the guest, and output of a command. Whoever only looks wakes nobody.

Not here: what is told of it (`health_answers`), and to whom (`health_thread`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import trio
from msgspec import Struct

from coworkd.model.calls import Stats

BEAT_S = 1.0
BEATS_REMEMBERED = 30
BEATS_PER_COUNT = 5
"""Counting takes a millisecond or two of the loop's time."""


class Counted(Struct, frozen=True, kw_only=True):
    """Stats, and when they were taken by CLOCK_MONOTONIC."""

    stats: Stats
    at: float


class Pulse:
    """`serve` is the loop's task; the rest is for everybody."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lags: deque[float] = deque(maxlen=BEATS_REMEMBERED)
        self._activity: object = None
        self.made_at = self.turned_at = self.active_at = monotonic()
        """When the loop turned last, and when somebody wanted something of the guest last."""
        self.lag_s = 0.0
        """By how much the loop was late, at most, in the last `BEATS_REMEMBERED` beats."""
        self.counted: Counted | None = None
        """None until there is something to count."""

    @property
    def uptime_s(self) -> float:
        return self._monotonic() - self.made_at

    @property
    def turned_ago_s(self) -> float:
        return self._monotonic() - self.turned_at

    @property
    def idle_for_s(self) -> float:
        return self._monotonic() - self.active_at

    @property
    def counted_ago_s(self) -> float | None:
        return None if self.counted is None else self._monotonic() - self.counted.at

    async def serve(self, activity: Callable[[], object], count: Callable[[], Stats | None]) -> None:
        """Beat until cancelled. `activity` gives something that differs from before when there was any; `count` None for not yet."""
        beats = 0
        while True:
            self._beat(activity())
            if beats % BEATS_PER_COUNT == 0 or self.counted is None:
                stats = count()
                if stats is not None:
                    self.counted = Counted(stats=stats, at=self.turned_at)
            beats += 1
            due = self._monotonic() + BEAT_S
            await trio.sleep(BEAT_S)
            self._lags.append(max(0.0, self._monotonic() - due))
            self.lag_s = max(self._lags)

    def _beat(self, activity: object) -> None:
        now = self._monotonic()
        if activity != self._activity:
            self._activity = activity
            self.active_at = now
        self.turned_at = now
