"""A client that speaks HTTP to us: CONNECT, and plain requests, one after another.

Requests that a client sends ahead of their answers (apt does) wait their turn, and each is asked for anew: what was granted for one host
says nothing about the next. A refusal ends the connection, so a client sends again, on a new one, what stood behind it.
"""

from __future__ import annotations

from typing import Final

from coworkd.proxy.conversation import AHEAD, KEPT_LIMIT_BYTES, Conversation
from coworkd.proxy.events import Asked, Refusal, Route, Send, Tunnelled, UpstreamDone
from coworkd.proxy.http_exchange import HttpExchange
from coworkd.proxy.http_head import HeadBuffer, HeadError, RequestHead, parse_request
from coworkd.proxy.refusals import compose_http_misuse, compose_http_refusal

_ESTABLISHED: Final = Send(data=b"HTTP/1.1 200 Connection Established\r\n\r\n")
_TUNNELLED: Final = Tunnelled()


class HttpFront(Conversation):
    """See `Front`, which this is the HTTP half of."""

    __slots__ = ("_ended", "_exchange", "_head", "_head_limit_bytes", "_kept")

    def __init__(self, head_limit_bytes: int) -> None:
        super().__init__()
        self._head_limit_bytes = head_limit_bytes
        self._kept = HeadBuffer(head_limit_bytes)
        self._head: RequestHead | None = None
        self._exchange: HttpExchange | None = None
        self._ended = False

    @property
    def kept_bytes(self) -> int:
        return len(self._kept)

    @property
    def rest(self) -> bytes:
        return self._kept.peek()

    def receive_data(self, data: bytes) -> None:
        if not data:
            self._ended = True
        exchange = self._exchange
        if self.phase == "exchange" and exchange is not None and not exchange.request_done:
            exchange.receive_client(data)
            self._settle(exchange)
            return
        self._kept.feed(data)
        if self.phase == "request":
            self._read_request()
        elif len(self._kept) > KEPT_LIMIT_BYTES:
            if self.phase == "exchange":
                self.told.append(UpstreamDone())
            self._misuse(AHEAD, b"", "http", abrupt=True)

    def grant(self, route: Route) -> None:
        self._decided()
        exchange = self._exchange
        if exchange is None:
            self.phase = "tunnel"
            self.told.append(_ESTABLISHED)
            self.told.append(_TUNNELLED)
            return
        self.phase = "exchange"
        exchange.begin(route)
        if not exchange.request_done:
            kept = self._kept.take_all()
            if kept:
                exchange.receive_client(kept)
            if self._ended and not exchange.request_done and exchange.state == "going":
                exchange.receive_client(b"")
        self._settle(exchange)

    def refuse(self, refusal: Refusal) -> None:
        self._decided()
        self._end(compose_http_refusal(refusal, body=self._head is None or self._head.method != b"HEAD"))

    def expire(self) -> None:
        if self._kept:
            self._misuse_head(HeadError(408, "the head of the request did not come in time"))
        else:
            self._end()

    def receive_upstream(self, data: bytes) -> None:
        exchange = self._running()
        exchange.receive_upstream(data)
        self._settle(exchange)

    def lose_upstream(self, refusal: Refusal) -> None:
        exchange = self._running()
        exchange.fail(refusal)
        self._settle(exchange)

    def _running(self) -> HttpExchange:
        if self._exchange is None or self.phase != "exchange":
            raise RuntimeError(f"no exchange runs: the conversation is in phase {self.phase}")
        return self._exchange

    def _read_request(self) -> None:
        try:
            raw = self._kept.take_head()
            if raw is None:
                self._wait_for_head()
                return
            head = parse_request(raw)
            if not head.connect:
                self._exchange = HttpExchange(head, self.told, head_limit_bytes=self._head_limit_bytes)
        except HeadError as error:
            self._misuse_head(error)
            return
        self._head = head
        self.phase = "decision"
        self.told.append(
            Asked(protocol="connect" if head.connect else "http", host=head.host, port=head.port, tunnel=head.connect)
        )

    def _wait_for_head(self) -> None:
        if self._ended and self._kept:
            self._misuse_head(HeadError(400, "the connection ended inside the head of a request"))
        elif self._ended:
            self._end()

    def _misuse_head(self, error: HeadError) -> None:
        self._misuse(error.reason, compose_http_misuse(error.status, error.reason), "http")

    def _settle(self, exchange: HttpExchange) -> None:
        """Go on from what the exchange came to."""
        if exchange.leftover:
            self._kept.feed(exchange.leftover)
            exchange.leftover = b""
        if exchange.state == "going":
            return
        if exchange.state == "switched":
            self.phase = "tunnel"
            self.told.append(_TUNNELLED)
            return
        self._exchange = None
        self.told.append(UpstreamDone())
        abrupt = exchange.state == "abrupt"
        if exchange.state == "next":
            self.phase = "request"
            self._read_request()
        elif exchange.misuse is not None:
            answer = b"" if abrupt else compose_http_misuse(400, exchange.misuse)
            self._misuse(exchange.misuse, answer, "http", abrupt=abrupt)
        else:
            self._end(abrupt=abrupt)
