"""What all sessions share: the loop, the pipes, the events and the sums."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from coworkd.egressd.dial import Means
from coworkd.egressd.events import Events
from coworkd.egressd.faults import Faults
from coworkd.egressd.loop import Loop
from coworkd.egressd.pipes import PipePool
from coworkd.egressd.pump import Inspector


class Held(Protocol):
    """Who waits until something may be decided again."""

    def room_came(self) -> None:
        """There is room for events."""


class State:
    """Made once."""

    def __init__(
        self,
        loop: Loop,
        pool: PipePool,
        events: Events,
        means: Means,
        inspector: Inspector,
        wall: Callable[[], float],
    ) -> None:
        self.loop = loop
        self.pool = pool
        self.events = events
        self.means = means
        self.wall = wall
        """Seconds since the epoch, for records."""
        self.inspector = inspector
        self.faults = Faults(lambda: loop.now)
        self.held: deque[Held] = deque()
        """Asked while no event could be kept; bounded by the connections there are."""
        self.last_number = 0
        self.accepted_total = 0
        self.refused_total = 0
        self.sent_bytes = 0
        self.received_bytes = 0

    def next_number(self) -> int:
        """The number of the next connection that is asked for."""
        self.last_number += 1
        return self.last_number

    def room_came(self) -> None:
        """Let those go on that were held, as far as there is room."""
        for _ in range(len(self.held)):
            if not self.events.has_room:
                return
            self.held.popleft().room_came()
