"""What was decided and what ended, until a supervisor has it durable.

Rules
- `seq` grows by one an event for as long as this program lives. Events are told in order, and told again from the first that is not
  recorded to each new supervisor.
- An allowed connection waits, by `wait_recorded`, until its `open` event is durable.
- At most `EVENT_LIMIT` unrecorded events: past that `has_room` is False, no connection is accepted and none decided on; only the ends of
  those that are open are still added, and one or two last requests of each that is inspected. Nothing is ever dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from coworkd.egressd.link import SupervisorLink
from coworkd.model.egress import EgressEvent

EVENT_LIMIT = 4096
_BATCH = 128
"""Events a message: with ordinary names these fit in a packet."""


class Events:
    """The unrecorded events. `on_room` is called when there is room again."""

    def __init__(self, on_room: Callable[[], None] = lambda: None) -> None:
        self._on_room = on_room
        self._events: deque[EgressEvent] = deque()
        self._waiting: deque[tuple[int, Callable[[int], object]]] = deque()
        self._last_seq = 0
        self._told = 0
        """How many of `_events` this supervisor was told."""

    def __len__(self) -> int:
        return len(self._events)

    @property
    def has_room(self) -> bool:
        """Whether something new may be decided."""
        return len(self._events) < EVENT_LIMIT

    @property
    def next_seq(self) -> int:
        """The `seq` of the event to be added next."""
        return self._last_seq + 1

    def add(self, event: EgressEvent) -> int:
        """Keep an event made with `next_seq`; returns that."""
        assert event.seq == self._last_seq + 1
        self._last_seq = event.seq
        self._events.append(event)
        return event.seq

    def wait_recorded(self, seq: int, call: Callable[[int], object]) -> None:
        """Call with `seq` once that event, the last one added, is durable. Not undone: `call` finds out whether it still matters."""
        self._waiting.append((seq, call))

    def tell(self, link: SupervisorLink) -> None:
        """Tell what was not told, as far as the link takes it."""
        while self._told < len(self._events) and not link.closed:
            batch = tuple(islice(self._events, self._told, self._told + _BATCH))
            if not link.tell(batch):
                return
            self._told += len(batch)

    @property
    def untold(self) -> bool:
        """Whether there is something to tell."""
        return self._told < len(self._events)

    def recorded(self, through: int) -> None:
        """Every event up to `through` is durable; a number that was never told is none of ours and changes nothing."""
        events = self._events
        if through > self._last_seq:
            return
        was_full = not self.has_room
        while events and events[0].seq <= through:
            events.popleft()
            self._told = max(0, self._told - 1)
        waiting = self._waiting
        while waiting and waiting[0][0] <= through:
            seq, call = waiting.popleft()
            call(seq)
        if was_full and self.has_room:
            self._on_room()

    def begin_again(self) -> None:
        """A new supervisor was told nothing."""
        self._told = 0
