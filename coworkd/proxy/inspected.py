"""The plain side of an inspected connection: requests of one client to one host, one after another, each judged before it goes on.

The TLS of both sides is opened elsewhere (`tls`); here are plain bytes. One upstream connection serves all requests: where the server
ends it, the client's ends too, and a client asks again on a new one, which is decided on anew.

Rules
- Each request is parsed and judged as `inspected_head` says; one that is refused is answered here, and that ends the connection. Nothing of
  it goes upstream.
- What goes on is written anew by `http_exchange`, with the client's own spelling of Host, for requests may be signed over it.
- Each request is told once, in `requests`, when its answer begins or it will have none: method, path without query, status, and a
  reason where we refused it. Status 0: the connection ended before an answer.
- A body that ends with its connection goes on as such, and so does how it ended: only the client can say whether an end without
  close_notify is enough for it (RFC 9112 section 9.8).
- After 101 (a websocket) bytes pass both ways as they are.
- What a client sends ahead of an answer waits, bounded.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

import h11
from msgspec import Struct

from coworkd.proxy.conversation import AHEAD, KEPT_LIMIT_BYTES, READ_AHEAD_BYTES
from coworkd.proxy.events import Event, Refusal, Route, Send, SendUpstream
from coworkd.proxy.http_exchange import Fields, HttpExchange
from coworkd.proxy.http_head import HeadBuffer, HeadError, RequestHead
from coworkd.proxy.inspected_head import MISDIRECTED, UNAUTHORIZED, judge_credentials, parse_inspected, shown_path
from coworkd.proxy.refusals import compose_http_misuse, compose_inspection_refusal

_HEAD_LIMIT_BYTES: Final = 16384 * 4
"""Larger than a proxy's: inside TLS stand cookies and tokens that a CONNECT has none of."""
_ANSWER_HEAD_LIMIT_BYTES: Final = 65536
_ROUTE: Final = Route()
_CLOSE: Final = (b"Connection", b"close")

Phase = Literal["requests", "raw", "ended"]


class InspectedRequest(Struct, frozen=True, kw_only=True):
    """One request, for the log."""

    method: str
    path: str
    status: int
    reason: str = ""


class _Exchange(HttpExchange):
    """One request on an upstream connection that stays for the next."""

    def __init__(
        self, head: RequestHead, told: deque[Event], upstream: h11.Connection, host_field: str, *, head_limit_bytes: int
    ) -> None:
        super().__init__(head, told, head_limit_bytes=head_limit_bytes)
        self._upstream = upstream
        self._host_field = host_field
        self._closing = False
        self.unframed = False
        """The answer's body ends with the server's connection."""
        self.status = 0
        self.reason = ""

    @property
    def answered(self) -> bool:
        return self.status != 0

    def begin(self, route: Route) -> None:
        request = h11.Request(
            method=self._head.method, target=self._head.path, headers=self._request_fields(self._host_field, route)
        )
        self._told.append(SendUpstream(data=self._upstream.send(request)))
        self._pump_request()

    def fail(self, refusal: Refusal) -> None:
        if not self._answered:
            self.status, self.reason = 502, refusal.reason
        super().fail(refusal)

    def _request_fields(self, authority: str, route: Route) -> Fields:
        return [field for field in super()._request_fields(authority, route) if field != _CLOSE]

    def _pass_interim(self, event: h11.InformationalResponse) -> None:
        super()._pass_interim(event)
        if event.status_code == 101:
            self.status = 101

    def _pass_response(self, event: h11.Response) -> None:
        self._closing = event.http_version != b"1.1" or any(
            name == b"connection" and b"close" in value.lower() for name, value in event.headers
        )
        self.unframed = _is_unframed(self._head.method, event)
        super()._pass_response(event)
        self.status = event.status_code

    def _send(self, event: h11.Event) -> None:
        """Tell the client that the server closes, or it would send its next request into nothing."""
        if self.unframed:
            self._send_unframed(event)
            return
        if isinstance(event, h11.Response) and self._closing and not self._last:
            fields = [*event.headers.raw_items(), _CLOSE]
            event = h11.Response(status_code=event.status_code, headers=fields, reason=event.reason)
        super()._send(event)

    def _send_unframed(self, event: h11.Event) -> None:
        """Past h11, which would frame it anew and so hide how it ends."""
        if isinstance(event, h11.Response):
            fields = [*(field for field in event.headers.raw_items() if field != _CLOSE), _CLOSE]
            lines = [b"HTTP/1.1 %d %b" % (event.status_code, event.reason), *(b"%b: %b" % field for field in fields)]
            self._told.append(Send(data=b"\r\n".join([*lines, b"", b""])))
        elif isinstance(event, h11.Data) and event.data:
            self._told.append(Send(data=bytes(event.data)))


def _is_unframed(method: bytes, event: h11.Response) -> bool:
    """RFC 9112 section 6.3, cases 1, 4, 6 and 8."""
    if method == b"HEAD" or event.status_code in (204, 304):
        return False
    return not any(name in (b"content-length", b"transfer-encoding") for name, _ in event.headers)


class InspectedConversation:
    """Plain bytes of a client and of its server. Not thread-safe; nothing that either sends raises.

    What is to be sent is taken with `take`; the owner sends it, and acts on `phase` and `abrupt` afterwards. `approved` are SHA-256 sums
    of credentials, one of which each request must carry; with none nothing is asked for.
    """

    def __init__(self, host: str, port: int, approved: tuple[str, ...]) -> None:
        self._host = host
        self._port = port
        self._approved = approved
        self._kept = HeadBuffer(_HEAD_LIMIT_BYTES)
        self._told: deque[Event] = deque()
        self._upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER_HEAD_LIMIT_BYTES)
        self._head: RequestHead | None = None
        self._exchange: _Exchange | None = None
        self._lost: str | None = None
        self._client_ended = False
        self._upstream_ended = False
        self._served = False
        self._last = False
        self.requests: deque[InspectedRequest] = deque()
        self.phase: Phase = "requests"
        self.abrupt = False
        """The client did not get the whole of an answer, and must be able to tell."""
        self.torn = False
        """The client got all there was of an answer that ends with its connection, and that ended without saying so."""

    @property
    def wants_client(self) -> bool:
        return self.phase != "ended" and len(self._kept) < READ_AHEAD_BYTES

    def take(self) -> tuple[bytes, bytes]:
        """What is to be sent to the client and to the server, in this order."""
        client = [event.data for event in self._told if isinstance(event, Send)]
        upstream = [event.data for event in self._told if isinstance(event, SendUpstream)]
        self._told.clear()
        return b"".join(client), b"".join(upstream)

    def take_no_more(self) -> None:
        """The request that runs is the last, if one does. A client asks again on a new connection, as it does of a server that closes."""
        self._last = True
        if self.phase == "requests" and self._exchange is None:
            self._end()

    def receive_client(self, data: bytes) -> None:
        """`b""`: the client sends no more; it may still wait for its answer."""
        if self.phase == "raw":
            if data:
                self._told.append(SendUpstream(data=data))
            else:
                self._end()
            return
        if self.phase == "ended":
            return
        self._client_ended = self._client_ended or not data
        exchange = self._exchange
        if exchange is not None and not exchange.request_done:
            exchange.receive_client(data)
            self._settle(exchange)
            return
        self._kept.feed(data)
        if exchange is None:
            self._read_request()
        elif len(self._kept) > KEPT_LIMIT_BYTES:
            self._tell(exchange, reason=AHEAD)
            self._end(abrupt=True)

    def receive_upstream(self, data: bytes) -> None:
        """`b""`: the server ended in order; for any other end see `lose_upstream`."""
        exchange = self._exchange
        self._upstream_ended = self._upstream_ended or not data
        if self.phase == "raw":
            if data:
                self._told.append(Send(data=data))
            else:
                self._end()
        elif exchange is not None and not data and self._served and not exchange.answered:
            self._end_unanswered(exchange)
        elif exchange is not None:
            exchange.receive_upstream(data)
            self._settle(exchange)
        elif self.phase == "requests":
            # Bytes that answer nothing, or the end of a connection that was idle: it is not used again.
            self._end()

    def tear_upstream(self, reason: str) -> None:
        """The server's connection ended without close_notify."""
        exchange = self._exchange
        if exchange is not None and exchange.unframed:
            self._tell(exchange)
            self.torn = True
            self._end()
        else:
            self.lose_upstream(reason)

    def lose_upstream(self, reason: str) -> None:
        """The server is lost: a 502 for the request that runs or comes next, where nothing of an answer was sent."""
        if self._lost is not None or self.phase == "ended":
            return
        self._lost = reason
        if self.phase == "raw":
            self._end(abrupt=True)
        elif self._exchange is None:
            if self._served:
                self._end()
        elif self._served and not self._exchange.answered:
            self._end_unanswered(self._exchange)
        else:
            self._exchange.fail(Refusal(kind="connect", reason=reason))
            self._settle(self._exchange)

    def lose_client(self, reason: str) -> None:
        """The client is lost, or was never one; told with the request that waits for an answer, if there is one."""
        if self.phase != "ended":
            if self._exchange is None or self._head is not None:
                self._note(0, reason)
            self._end(abrupt=True)

    # -- requests

    def _end_unanswered(self, exchange: _Exchange) -> None:
        """A server may close a connection that was idle just when a request comes: clients know that, and ask again on a new one."""
        self._tell(exchange, reason="the server closed the connection before it answered")
        self._end()

    def _read_request(self) -> None:
        try:
            raw = self._kept.take_head()
            if raw is None:
                if self._client_ended:
                    self._end_of_requests()
                return
            self._head = head = parse_inspected(raw, self._host, self._port)
        except HeadError as error:
            self._refuse_head(error)
            return
        problem = judge_credentials(head.fields, self._approved) if self._approved else None
        if problem is not None:
            self._answer(compose_inspection_refusal(UNAUTHORIZED, problem, body=head.method != b"HEAD"))
            self._note(UNAUTHORIZED, problem)
            self._end()
            return
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        try:
            exchange = _Exchange(
                head, self._told, self._upstream, self._host_field(head), head_limit_bytes=2 * _HEAD_LIMIT_BYTES
            )
        except HeadError as error:
            self._refuse_head(error)
            return
        self._exchange = exchange
        if self._lost is not None:
            exchange.fail(Refusal(kind="connect", reason=self._lost))
        else:
            exchange.begin(_ROUTE)
            if not exchange.request_done:
                kept = self._kept.take_all()
                if kept:
                    exchange.receive_client(kept)
                if self._client_ended and not exchange.request_done and exchange.state == "going":
                    exchange.receive_client(b"")
        self._settle(exchange)

    def _host_field(self, head: RequestHead) -> str:
        for name, value in head.fields:
            if name.lower() == b"host":
                return value.decode("ascii")
        authority = f"[{self._host}]" if ":" in self._host else self._host
        return authority if self._port == 443 else f"{authority}:{self._port}"

    def _refuse_head(self, error: HeadError) -> None:
        if error.status == MISDIRECTED:
            self._answer(compose_inspection_refusal(MISDIRECTED, error.reason))
        else:
            self._answer(compose_http_misuse(error.status, error.reason))
        self._head = None
        self._note(error.status, error.reason)
        self._end()

    def _end_of_requests(self) -> None:
        if self._kept:
            self._refuse_head(HeadError(400, "the connection ended inside the head of a request"))
        else:
            self._end()

    def _settle(self, exchange: _Exchange) -> None:
        """Go on from what the exchange came to."""
        if exchange.leftover:
            self._kept.feed(exchange.leftover)
            exchange.leftover = b""
        if exchange.status:
            self._tell(exchange)
        if exchange.state == "going":
            return
        self._exchange = None
        if exchange.state == "switched":
            self.phase = "raw"
            ahead = self._kept.take_all()
            if ahead:
                self._told.append(SendUpstream(data=ahead))
            return
        if exchange.misuse is not None:
            if exchange.state == "end":
                self._answer(compose_http_misuse(400, exchange.misuse))
                exchange.status = exchange.status or 400
            self._tell(exchange, reason=exchange.misuse)
        if exchange.state == "next" and not self._last and self._upstream_stays():
            self._upstream.start_next_cycle()
            self._served = True
            self._read_request()
        else:
            self._tell(exchange)
            self._end(abrupt=exchange.state == "abrupt")

    def _upstream_stays(self) -> bool:
        if self._upstream_ended:
            return False
        upstream = self._upstream
        return upstream.our_state is h11.DONE and upstream.their_state is h11.DONE and not upstream.trailing_data[0]

    # -- telling

    def _tell(self, exchange: _Exchange, *, reason: str = "") -> None:
        """Once a request: `_head` is forgotten with it."""
        if self._head is not None:
            self._note(exchange.status, exchange.reason or reason)

    def _note(self, status: int, reason: str) -> None:
        head, self._head = self._head, None
        method = "" if head is None else head.method.decode("ascii")
        path = "" if head is None else shown_path(head)
        self.requests.append(InspectedRequest(method=method, path=path, status=status, reason=reason))

    def _answer(self, data: bytes) -> None:
        self._told.append(Send(data=data))

    def _end(self, *, abrupt: bool = False) -> None:
        self.phase = "ended"
        self.abrupt = abrupt
        self._exchange = None
