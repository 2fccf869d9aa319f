"""Conversations with a `Front`, written as the script of a play.

    playbook().client(b"…").told(Asked(…)).grant().told(Send(data=b"…"), Tunnelled())

`told` is exact: all that was told since the last `told`, with neighbouring pieces of one stream joined. The pieces in which client and
server speak are the playbook's: a script says the same whichever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from coworkd.proxy.events import Event, NeedData, Refusal, RefusalKind, Route, Send, SendUpstream, UpstreamDone
from coworkd.proxy.front import Front


class Playbook:
    def __init__(self, piece_bytes: int = 0, *, head_limit_bytes: int = 16384) -> None:
        self.front = Front(head_limit_bytes=head_limit_bytes)
        self._piece_bytes = piece_bytes
        self._heard: list[Event] = []

    def client(self, data: bytes) -> Playbook:
        return self._speak(self.front.receive_data, data)

    def client_ends(self) -> Playbook:
        self.front.receive_data(b"")
        return self._listen()

    def server(self, data: bytes) -> Playbook:
        """What comes behind the end of an exchange is not given to the front: its caller has closed that connection."""
        return self._speak(self._hear_server, data)

    def server_ends(self) -> Playbook:
        self.front.receive_upstream(b"")
        return self._listen()

    def server_lost(self, kind: RefusalKind, reason: str = "it was reset") -> Playbook:
        self.front.lose_upstream(Refusal(kind=kind, reason=reason))
        return self._listen()

    def grant(self, route: Route | None = None) -> Playbook:
        self.front.grant(route or Route())
        return self._listen()

    def refuse(self, kind: RefusalKind, reason: str = "because", denied_reason: str = "") -> Playbook:
        self.front.refuse(Refusal(kind=kind, reason=reason, denied_reason=denied_reason))
        return self._listen()

    def expire(self) -> Playbook:
        self.front.expire()
        return self._listen()

    def told(self, *expected: Event) -> Playbook:
        assert joined(self._heard) == list(expected)
        self._heard = []
        return self

    def skip(self) -> Playbook:
        """What was told so far is another test's."""
        self._heard = []
        return self

    def hear(self) -> list[Event]:
        heard, self._heard = joined(self._heard), []
        return heard

    def _speak(self, receive: Callable[[bytes], None], data: bytes) -> Playbook:
        step = self._piece_bytes or len(data)
        for at in range(0, len(data), step):
            receive(data[at : at + step])
            self._listen()
        return self

    def _hear_server(self, data: bytes) -> None:
        if not any(isinstance(event, UpstreamDone) for event in self._heard):
            self.front.receive_upstream(data)

    def _listen(self) -> Playbook:
        self._heard += told_by(self.front)
        return self


def told_by(front: Front) -> Iterator[Event]:
    while not isinstance(event := front.next_event(), NeedData):
        yield event


def joined(events: list[Event]) -> list[Event]:
    """With neighbours of one stream as one, as a socket would show them."""
    made: list[Event] = []
    for event in events:
        last = made[-1] if made else None
        if isinstance(event, Send) and isinstance(last, Send):
            made[-1] = Send(data=last.data + event.data)
        elif isinstance(event, SendUpstream) and isinstance(last, SendUpstream):
            made[-1] = SendUpstream(data=last.data + event.data)
        else:
            made.append(event)
    return made
