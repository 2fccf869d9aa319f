"""Telling refusals: the first of a kind at once, its repeats within a second as one event with their count.

Bounded: `_KIND_LIMIT` kinds a session and second; those past it are told as one kind of their own, without a host. While there is no room
for events refusals are counted, and told when there is.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from coworkd.egressd.events import Events
from coworkd.model.egress import EgressEvent

_WINDOW_S = 1.0
_KIND_LIMIT = 256
_OTHERS = "more refusals than are told one by one"


class _Repeats:
    """One kind of refusal within its second."""

    __slots__ = ("count", "event", "since")

    def __init__(self, event: EgressEvent, since: float) -> None:
        self.event = event
        self.since = since
        self.count = 0
        """Those not told yet."""


class Refusals:
    """The refusals of one session. `sweep` is to be called a few times a second, `flush` at its end."""

    def __init__(self, events: Events, clock: Callable[[], float]) -> None:
        self._events = events
        self._clock = clock
        self._kinds: dict[tuple[str, str, int, str | None, str], _Repeats] = {}

    def tell(self, event: EgressEvent) -> None:
        """Tell, or count. Its `seq` and `count` do not matter."""
        kind = (event.protocol, event.host, event.port, event.rule, event.reason)
        if kind not in self._kinds and len(self._kinds) >= _KIND_LIMIT:
            event = replace(event, protocol="unknown", host="", port=0, rule=None, reason=_OTHERS, upstream="")
            kind = ("unknown", "", 0, None, _OTHERS)
        repeats = self._kinds.get(kind)
        if repeats is None:
            repeats = self._kinds[kind] = _Repeats(event, self._clock())
            if self._events.has_room:
                self._events.add(replace(event, seq=self._events.next_seq, count=1))
                return
        repeats.event = event
        repeats.count += 1

    def sweep(self) -> None:
        """Tell what repeated, once its second is over."""
        now = self._clock()
        for kind, repeats in list(self._kinds.items()):
            if now - repeats.since >= _WINDOW_S and self._tell_count(repeats):
                del self._kinds[kind]

    def flush(self) -> None:
        """Tell everything that is counted, room or not: the session ends."""
        for repeats in self._kinds.values():
            self._tell_count(repeats, always=True)
        self._kinds.clear()

    def _tell_count(self, repeats: _Repeats, *, always: bool = False) -> bool:
        if repeats.count:
            if not (always or self._events.has_room):
                return False
            self._events.add(replace(repeats.event, seq=self._events.next_seq, count=repeats.count))
            repeats.count = 0
        return True
