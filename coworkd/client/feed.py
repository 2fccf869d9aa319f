"""The published events of a link, in order of `seq`, bounded, without I/O.

Rules
- At most `BOUND` events wait here, as many as the guest itself keeps. One more makes the feed `parked`: it and all later
  ones are dropped, and the client subscribes again after `last_seq` when the waiting ones were taken.
- An event that was had already is dropped. `missed` counts those that were gone from the guest's ring.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from coworkd.model.errors import InvalidState
from coworkd.model.event import Event

BOUND = 4096


class Feed:
    """The receiving end of `events.subscribe`. `last_seq` is None until the first event or an `after` is known."""

    def __init__(self, after: int | None, *, bound: int = BOUND) -> None:
        self.last_seq = after
        self.missed = 0
        self.parked = False
        self._bound = bound
        self._closed = False
        self._queue: deque[Event] = deque()

    def subscribed(self, next_seq: int, missed: int) -> None:
        """The guest's answer to `events.subscribe`: events count (again) from here."""
        self.missed += missed
        self.parked = False
        if self.last_seq is None:
            self.last_seq = next_seq - 1

    def feed(self, name: str, params: Mapping[str, Any]) -> None:
        """Take one notification that has `seq` in. Raises `TypeError`, `KeyError` where the guest sent nonsense."""
        seq, at = params["seq"], params["at"]
        if not isinstance(seq, int) or not isinstance(at, (int, float)):
            raise TypeError("seq must be an integer and at a number")
        if self.parked or (self.last_seq is not None and seq <= self.last_seq):
            return
        if len(self._queue) >= self._bound:
            self.parked = True
            return
        self.last_seq = seq
        rest = {key: value for key, value in params.items() if key not in ("seq", "at")}
        self._queue.append(Event(seq=seq, at=float(at), name=name, params=rest))

    def take(self) -> Event | None:
        """The next event, or None when none waits. Raises `InvalidState` behind the last one of a feed that is closed."""
        if self._closed and not self._queue:
            raise InvalidState("the events were unsubscribed from here")
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        """Nothing comes any more: what waits can be taken, then whoever wants more is told."""
        self._closed = True

    @property
    def waiting(self) -> bool:
        """An event can be taken now, or `take` raises, or the feed is parked and wants to be resumed."""
        return bool(self._queue) or self._closed or self.parked
