"""The ring of published events, and the links that follow it.

Rules
- An event gets the next sequence number, from 1 in each boot, and is encoded once, when it is published.
- The last `RING_EVENTS` are kept, at most `RING_BYTES` of them; the oldest go first.
- A follower has a cursor into the ring and nothing else: one that does not read holds no memory. What went from the ring
  before it was sent is told by `events.missed {missed, next}` in its place.
- Publishing never blocks and never fails: what cannot be encoded is told as text, and of an event over `EVENT_BYTES` only
  its short values, with `cut: true`.

Not here: what is worth an event. Source: docs/protocol.md N-2 to N-4.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from coworkd.model.calls import Empty, Subscribe, Subscribed
from coworkd.model.errors import OutOfRange
from coworkd.model.event import Event
from coworkd.model.ports import LinkPort
from coworkd.wire.connection import compose_notification
from coworkd.wire.convert import compose_answer
from coworkd.wire.fault import encodable
from coworkd.wire.limits import LocalProtocolError

RING_EVENTS = 4096
RING_BYTES = 8 * 1024 * 1024
EVENT_BYTES = 64 * 1024
_SHORT_CHARACTERS = 256
_MISSED_BYTES = 64
"""More than an `events.missed` takes."""

_log = logging.getLogger("coworkd.events")


class EventRing:
    """Implements `ports.EventPort`. Owned by `app`; nothing in it needs closing."""

    def __init__(self, *, clock: Callable[[], float] = time.time, ring_events: int = RING_EVENTS) -> None:
        self._clock = clock
        self._ring_events = ring_events
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._next = 1
        self._followers: dict[LinkPort, _Follower] = {}
        self.missed_total = 0
        """Events that had gone before a follower could be sent them, counted for each."""

    @property
    def next(self) -> int:
        """The sequence number of the next event."""
        return self._next

    @property
    def first(self) -> int:
        """The sequence number of the oldest event kept; `next` if there is none."""
        return self._next - len(self._frames)

    def publish(self, name: str, params: Mapping[str, Any], /) -> Event:
        """Keep an event and tell everybody who follows."""
        event = Event(seq=self._next, at=self._clock(), name=name, params=dict(params))
        frame = _encode(event)
        self._frames.append(frame)
        self._bytes += len(frame)
        self._next += 1
        while len(self._frames) > self._ring_events or self._bytes > RING_BYTES:
            self._bytes -= len(self._frames.popleft())
        for follower in self._followers.values():
            follower.link.wake(follower)
        return event

    def subscribe(self, params: Subscribe, link: LinkPort, /) -> Subscribed:
        """Follow from `after`. A link follows once: a second subscription takes the first one's place.

        Raises `OutOfRange` for an `after` that was not given out yet (in this boot).
        """
        after = self._next - 1 if params.after is None else params.after
        if not 0 <= after < self._next:
            raise OutOfRange(
                f"no event {after} was published since this boot, the newest is {self._next - 1}; subscribe without "
                "after, or with 0 for everything that is kept",
                after=after,
                newest=self._next - 1,
            )
        self.unsubscribe(link)
        missed = max(0, self.first - after - 1)
        cursor = after + 1 + missed
        follower = self._followers[link] = _Follower(self, link, cursor)
        link.attach(follower)
        return Subscribed(next=cursor, missed=missed)

    def unsubscribe(self, link: LinkPort, /) -> Empty:
        """Follow no more; a link that does not follow is passed over."""
        follower = self._followers.get(link)
        if follower is not None:
            link.detach(follower)
        return Empty()

    def frames_from(self, seq: int) -> islice[bytes]:
        """The encoded events from `seq`, which must be kept, to the newest."""
        return islice(self._frames, seq - self.first, None)

    def forget(self, follower: _Follower) -> None:
        """The link has let `follower` go."""
        if self._followers.get(follower.link) is follower:
            del self._followers[follower.link]


class _Follower:
    """One link's cursor: a `ports.Frames`."""

    def __init__(self, ring: EventRing, link: LinkPort, cursor: int) -> None:
        self.link = link
        self._ring = ring
        self._cursor = cursor

    def next_frame(self, limit_bytes: int, /) -> list[bytes | memoryview] | None:
        frames: list[bytes | memoryview] = []
        missed = self._ring.first - self._cursor
        if missed > 0:
            self._ring.missed_total += missed
            self._cursor = self._ring.first
            frames.append(compose_notification("events.missed", {"missed": missed, "next": self._cursor}))
        room = limit_bytes - _MISSED_BYTES
        for frame in self._ring.frames_from(self._cursor):
            room -= len(frame)
            if room < 0 and frames:
                break
            frames.append(frame)
            self._cursor += 1
        return frames or None

    def detached(self) -> None:
        self._ring.forget(self)


def _encode(event: Event) -> bytes:
    try:
        frame = compose_notification(event.name, _fields(event, compose_answer(event.params)))
    except (LocalProtocolError, NotImplementedError, TypeError) as error:
        _log.warning("event %s is told as text: %s", event.name, error)
        frame = compose_notification(event.name, _fields(event, encodable(event.params)))
    if len(frame) <= EVENT_BYTES:
        return frame
    _log.warning("event %s of %d bytes is cut", event.name, len(frame))
    short = {key: value for key, value in encodable(event.params).items() if _is_short(value)}
    return compose_notification(event.name, _fields(event, {**dict(list(short.items())[:32]), "cut": True}))


def _fields(event: Event, params: Mapping[str, Any]) -> dict[str, Any]:
    return {**params, "seq": event.seq, "at": event.at}


def _is_short(value: object) -> bool:
    return (
        value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) < _SHORT_CHARACTERS)
    )
