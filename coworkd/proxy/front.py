"""One client connection of a session, whichever of our protocols it speaks: the first byte tells.

5 is SOCKS5, 4 is SOCKS4 (refused as such), all else is HTTP or an error of HTTP. So both ports serve both.
"""

from __future__ import annotations

from coworkd.proxy.conversation import READ_AHEAD_BYTES, Conversation, Over, Phase
from coworkd.proxy.events import NEED_DATA, Event, Refusal, Route
from coworkd.proxy.http_front import HttpFront
from coworkd.proxy.refusals import SOCKS4_REJECTED
from coworkd.proxy.socks5 import Socks5Front


class Front:
    """Bytes in, events out; never I/O. After `Asked` it waits for `grant` or `refuse`, once.

    Call `next_event` until it gives `NEED_DATA` behind every other call. Nothing a client or a server sends raises; what the caller
    does out of turn is a `RuntimeError`.
    """

    __slots__ = ("_head_limit_bytes", "_spoken")

    def __init__(self, *, head_limit_bytes: int = 16384) -> None:
        self._head_limit_bytes = head_limit_bytes
        self._spoken: Conversation | None = None

    @property
    def phase(self) -> Phase:
        """`request`: the client is to say what it wants, and its deadline counts. `decision`: an `Asked` waits. `exchange`: a forwarded
        request runs. `tunnel`: the bytes are the caller's. `ended`.
        """
        return "request" if self._spoken is None else self._spoken.phase

    @property
    def wants_data(self) -> bool:
        """Whether the client is to be read from now; where not, what it sends is to wait in its socket."""
        spoken = self._spoken
        return spoken is None or (spoken.phase not in ("tunnel", "ended") and spoken.kept_bytes < READ_AHEAD_BYTES)

    def receive_data(self, data: bytes) -> None:
        """What the client sent; `b""` is its end of file. A client may end and still wait for its answer, or use its tunnel one way."""
        spoken = self._spoken
        if spoken is None:
            spoken = self._spoken = self._recognise(data)
        if spoken.phase == "tunnel":
            raise RuntimeError("the bytes of a tunnel are the caller's")
        if spoken.phase != "ended":
            spoken.receive_data(data)

    def next_event(self) -> Event:
        return NEED_DATA if self._spoken is None else self._spoken.next_event()

    def grant(self, route: Route) -> None:
        """The way is open: a tunnel begins, or the exchange with an upstream that is connected now."""
        self._speaking().grant(route)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in the client's own protocol, and end."""
        self._speaking().refuse(refusal)

    def expire(self) -> None:
        """The client took too long to say what it wants: end, and answer that it did if it had begun. Of phase `request` only."""
        if self._spoken is None:
            self._spoken = Over()
        elif self._spoken.phase == "request":
            self._spoken.expire()
        else:
            raise RuntimeError(f"no request is awaited: the conversation is in phase {self.phase}")

    def receive_upstream(self, data: bytes) -> None:
        """What the server of an exchange sent; `b""` is its orderly end of file. For any other end see `lose_upstream`."""
        self._speaking().receive_upstream(data)

    def lose_upstream(self, refusal: Refusal) -> None:
        """The server of an exchange was lost: a reset, a deadline. A refusal while nothing of an answer was sent, else an abrupt end."""
        self._speaking().lose_upstream(refusal)

    @property
    def rest(self) -> bytes:
        """After `Tunnelled`: what the client sent behind its request."""
        return self._speaking().rest

    def _speaking(self) -> Conversation:
        if self._spoken is None:
            raise RuntimeError("the client has said nothing yet")
        return self._spoken

    def _recognise(self, data: bytes) -> Conversation:
        if not data:
            return Over()
        if data[0] == 5:
            return Socks5Front()
        if data[0] == 4:
            return Over("SOCKS4 is not served: use SOCKS5 (socks5h://)", SOCKS4_REJECTED)
        return HttpFront(self._head_limit_bytes)
