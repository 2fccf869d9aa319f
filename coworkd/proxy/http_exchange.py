"""One plain HTTP request and its answer, between a client of ours and a server or parent proxy.

h11 stands at both ends: as the server of the client, as the client of the server. Everything is read and written anew, so what goes
upstream has one meaning only: one request, with the target that was granted, and `Connection: close` behind it. The bytes of bodies
are exact, their framing is ours; sizes and trailers stay.

Rules
- Fields of one hop (Connection and what it names, Keep-Alive, TE, Transfer-Encoding, Upgrade, everything that begins with `Proxy-`) are
  not passed on, either way; Host is made from the target. No Via: a session's traffic says nothing of where it runs.
- An Upgrade is passed on and becomes raw bytes after 101, except through a parent proxy: one that takes 101 for an interim answer
  would read the client's raw bytes as requests, for any host.
- An answer that comes before the whole request was taken ends the client's connection; so does all that an HTTP/1.0 client asks.
- A malformed or broken answer is a 502 while nothing of an answer was sent; afterwards an abrupt end.
- What comes in goes out with the same call; only an unfinished head, chunk header or trailer waits, bounded.

Sources: RFC 9110 sections 7.6 and 7.8, RFC 9112 sections 3.2, 6, 7 and 9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

import h11

from coworkd.proxy.events import Event, Refusal, Route, Send, SendUpstream
from coworkd.proxy.http_head import HeadError, RequestHead, list_options
from coworkd.proxy.refusals import compose_http_refusal

_ANSWER_HEAD_LIMIT_BYTES: Final = 65536
_ONE_HOP: Final = frozenset((b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"http2-settings"))
_NOT_IN_TRAILERS: Final = frozenset(
    (b"host", b"content-length", b"trailer", b"authorization", b"x-api-key", b"cookie", b"set-cookie")
)
"""RFC 9110 section 6.5.1; with `_` for `-` as well. A server that takes trailers for fields would find there what nobody judged."""

Fields = list[tuple[bytes, bytes]]
State = Literal["going", "next", "end", "abrupt", "switched"]
"""`next`: complete, and the client may ask again. `end`, `abrupt`: the client's connection ends. `switched`: raw bytes from now on."""


class HttpExchange:
    """The exchange of one head that passed `parse_request`. Raises `HeadError` where h11 does not take it either.

    Events are appended to `told`. `leftover` are the client's bytes behind the request, once `request_done`.
    """

    def __init__(self, head: RequestHead, told: deque[Event], *, head_limit_bytes: int) -> None:
        self._head = head
        self._told = told
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=head_limit_bytes)
        self._upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER_HEAD_LIMIT_BYTES)
        self._parent = False
        self._answered = False
        self._last = False
        self.state: State = "going"
        self.request_done = False
        self.leftover = b""
        self.misuse: str | None = None
        """What the client broke, if it did; where `state` is `end`, that is still to be answered."""
        self._client.receive_data(head.raw)
        try:
            self._client.next_event()
        except h11.RemoteProtocolError as error:
            raise HeadError(400, "the head of the request is malformed") from error

    def begin(self, route: Route) -> None:
        """Send the request's head upstream; `receive_client` may be called from now on."""
        self._parent = route.absolute_form
        host = route.host or self._head.host
        authority = f"[{host}]" if ":" in host else host
        if self._head.port != 80:
            authority += f":{self._head.port}"
        head = h11.Request(
            method=self._head.method,
            target=self._target(authority, absolute=route.absolute_form),
            headers=self._request_fields(authority, route),
        )
        self._told.append(SendUpstream(data=self._upstream.send(head)))
        self._pump_request()

    def receive_client(self, data: bytes) -> None:
        """More of the request's body; `b""`: the client has ended, which breaks a request that is not complete."""
        self._client.receive_data(data)
        self._pump_request()

    def receive_upstream(self, data: bytes) -> None:
        """More of the answer; `b""`: the server has ended."""
        try:
            self._upstream.receive_data(data)
            while self.state == "going":
                event = self._upstream.next_event()
                if isinstance(event, h11.InformationalResponse):
                    self._pass_interim(event)
                elif isinstance(event, h11.Response):
                    self._pass_response(event)
                elif isinstance(event, h11.Data):
                    self._send(event)
                elif isinstance(event, h11.EndOfMessage):
                    self._finish_response(event)
                else:
                    return
        except h11.ProtocolError:
            # A LocalProtocolError is the server's fault as well: it answered with what cannot be said to this client.
            self.fail(
                Refusal(kind="connect", reason="the server's answer is not valid HTTP, or it ended in the middle")
            )

    def fail(self, refusal: Refusal) -> None:
        """There is no answer, or no more of it."""
        if self._answered:
            self.state = "abrupt"
            return
        self._told.append(Send(data=compose_http_refusal(refusal, body=self._head.method != b"HEAD")))
        self.state = "end"

    # -- the request

    def _target(self, authority: str, *, absolute: bool) -> bytes:
        if not absolute:
            return self._head.path
        path = b"" if self._head.path == b"*" else self._head.path
        return b"http://" + authority.encode("ascii") + path

    def _request_fields(self, authority: str, route: Route) -> Fields:
        fields = [(b"Host", authority.encode("ascii"))]
        fields += _end_to_end(self._head.fields, self._head.connection | {b"host"})
        chunked = any(name.lower() == b"transfer-encoding" for name, _ in self._head.fields)
        if chunked:
            fields.append((b"Transfer-Encoding", b"chunked"))
        upgrades = [value for name, value in self._head.fields if name.lower() == b"upgrade"]
        if upgrades and b"upgrade" in self._head.connection and self._head.minor and not route.absolute_form:
            fields += [(b"Connection", b"Upgrade"), *((b"Upgrade", value) for value in upgrades)]
        else:
            fields.append((b"Connection", b"close"))
        if route.proxy_authorization is not None:
            fields.append((b"Proxy-Authorization", route.proxy_authorization.encode("latin-1")))
        return fields

    def _pump_request(self) -> None:
        try:
            while not self.request_done and self.state == "going":
                event = self._client.next_event()
                if isinstance(event, h11.Data):
                    self._told.append(SendUpstream(data=self._upstream.send(event)))
                elif isinstance(event, h11.EndOfMessage):
                    self._finish_request(event)
                else:
                    return
        except h11.RemoteProtocolError:
            self._break_request()

    def _finish_request(self, end: h11.EndOfMessage) -> None:
        data = self._upstream.send(h11.EndOfMessage(headers=_trailers(end)))
        if data:
            self._told.append(SendUpstream(data=data))
        self.request_done = True
        self.leftover = self._client.trailing_data[0]

    def _break_request(self) -> None:
        self.misuse = "the body of a request is malformed, or the connection ended in the middle of it"
        self.state = "abrupt" if self._answered else "end"

    # -- the answer

    def _pass_interim(self, event: h11.InformationalResponse) -> None:
        if event.status_code == 101:
            self._switch(event)
        elif self._head.minor:
            # RFC 9110 section 15.2: an HTTP/1.0 client is sent none.
            fields = _end_to_end(event.headers.raw_items(), _options(event))
            self._send(h11.InformationalResponse(status_code=event.status_code, headers=fields, reason=event.reason))

    def _switch(self, event: h11.InformationalResponse) -> None:
        if not self.request_done:
            raise h11.LocalProtocolError("switched in the middle of the request")
        fields = _end_to_end(event.headers.raw_items(), _options(event))
        fields.append((b"Connection", b"Upgrade"))
        fields += [(b"Upgrade", value) for name, value in event.headers if name == b"upgrade"]
        self._send(h11.InformationalResponse(status_code=101, headers=fields, reason=event.reason))
        behind = self._upstream.trailing_data[0]
        if behind:
            self._told.append(Send(data=behind))
        self.state = "switched"

    def _pass_response(self, event: h11.Response) -> None:
        if event.status_code == 407 and self._parent:
            reason = "the parent proxy asks for credentials, or does not take those it got: set them in parentProxy"
            self.fail(Refusal(kind="connect", reason=reason))
            return
        dropped = _options(event) - {b"content-length"}
        if event.status_code == 204 or any(name == b"transfer-encoding" for name, _ in event.headers):
            dropped |= {b"content-length"}
        fields = _end_to_end(event.headers.raw_items(), dropped)
        if not self.request_done:
            self._last = True
            fields.append((b"Connection", b"close"))
        self._send(h11.Response(status_code=event.status_code, headers=fields, reason=event.reason))
        self._answered = True

    def _finish_response(self, end: h11.EndOfMessage) -> None:
        self._send(h11.EndOfMessage(headers=_trailers(end) if self._head.minor else []))
        reusable = self.request_done and not self._last and self._client.our_state is h11.DONE
        self.state = "next" if reusable else "end"

    def _send(self, event: h11.Event) -> None:
        data = self._client.send(event)
        if data:
            self._told.append(Send(data=bytes(data)))


def _options(event: h11.InformationalResponse | h11.Response) -> frozenset[bytes]:
    return list_options([value for name, value in event.headers if name == b"connection"])


def _end_to_end(fields: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> Fields:
    """Without the fields of one hop, and without those `dropped`."""
    kept = []
    for name, value in fields:
        lowered = name.lower()
        if lowered not in _ONE_HOP and lowered not in dropped and not lowered.startswith(b"proxy-"):
            kept.append((name, value))
    return kept


def _trailers(end: h11.EndOfMessage) -> Fields:
    trailers = _end_to_end(end.headers.raw_items(), frozenset())
    return [field for field in trailers if field[0].lower().replace(b"_", b"-") not in _NOT_IN_TRAILERS]
