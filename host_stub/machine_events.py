"""What happened to a machine, in order: numbered, kept in a ring, and waited for.

`seq` counts from 1 and is never given twice by one ring. Whoever reads asks for what came after the last one he saw, and is told how many
were gone by then: a slow reader loses the oldest and knows it. Adding never waits. One trio loop; not thread-safe.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import trio

from coworkd.wire.fault import encodable
from host_stub.words import MachineEvent, MachineState

LIMIT = 4096
MESSAGE_LIMIT = 4096
DETAILS_LIMIT_BYTES, DETAILS_LIMIT_VALUES = 16 << 10, 512
"""Details that a guest made larger are left out: what is kept of a guest is bounded, whatever it sends, and so is an answer with many."""
Kind = Literal["state", "progress", "guest", "trouble", "log"]


class EventRing:
    """The last `limit` events."""

    def __init__(self, *, limit: int = LIMIT, wall: Callable[[], float] = time.time) -> None:
        self._events: deque[MachineEvent] = deque(maxlen=limit)
        self._wall = wall
        self._changed = trio.Event()
        self.last_seq = 0
        self.last_state: MachineEvent | None = None
        """The last change of state, though others may have pushed it out."""

    def add(
        self,
        kind: Kind,
        message: str = "",
        *,
        state: MachineState | None = None,
        details: dict[str, Any] | None = None,
    ) -> MachineEvent:
        """Keep an event, and wake who waits for one."""
        self.last_seq += 1
        event = MachineEvent(
            seq=self.last_seq,
            at=self._wall(),
            kind=kind,
            state=state,
            message=message[:MESSAGE_LIMIT],
            details=_bounded(details or {}),
        )
        self._events.append(event)
        if state is not None:
            self.last_state = event
        self._changed.set()
        self._changed = trio.Event()
        return event

    def after(self, seq: int, *, limit: int = LIMIT) -> tuple[tuple[MachineEvent, ...], int]:
        """The first `limit` events behind `seq`, and how many before them are gone. A `seq` of another ring begins anew."""
        if seq > self.last_seq:
            seq = 0
        found = [event for event in self._events if event.seq > seq][:limit]
        missed = found[0].seq - seq - 1 if found else 0
        return tuple(found), missed

    async def wait_after(self, seq: int) -> None:
        """Until there is an event behind `seq`."""
        while self.last_seq <= seq:
            await self._changed.wait()


def _bounded(details: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = encodable(details)
    size = len(msgspec.msgpack.encode(kept))
    return kept if size <= DETAILS_LIMIT_BYTES and _count(kept) <= DETAILS_LIMIT_VALUES else {"left_out_bytes": size}


def _count(value: Any) -> int:
    """How many values there are in all; of what `encodable` gave, which is not deep."""
    if isinstance(value, dict):
        return 1 + sum(1 + _count(each) for each in value.values())
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1
