"""One end of a link, without I/O: bytes in, typed events out; calls in, bytes out.

The wire is MessagePack-RPC with no length prefix. Rules (each has the name that `RemoteProtocolError.rule` tells)
- `message-shape`: a request is `[0, id, method, [{…}]]`, a response `[1, id, error, result]`, a notification
  `[2, method, [{…}]]`; any encoding of the same values is accepted.
- `id`: an id is an integer from 0 to 2**32 - 1. `id-reused`: a request may not use the id of one that is not yet
  answered. `id-unknown`: a response must answer a request that is outstanding.
- `params`: parameters are exactly one map in an array; an empty array stands for an empty map. `map-key`: keys are
  text, and none stands twice. A method name that comes as bin is read as text, for clients that send it so.
- `result`: of a response exactly one of error and result is not nil, and that one is a map.
- `direction`: only hosts send requests, only guests send responses. Notifications go both ways.
- `utf-8`: text is UTF-8. `format`, `extension`, `frame-bytes`, `depth`, `items`, `values`: see `limits` and `scanner`.
  `truncated`: the stream ended inside a message.
- After a breach the connection gives no more events: `next_event` raises the same error again. It can still compose
  what tells the peer why: the notification `link.error {code, message, details: {rule, …}}`, after which the link is
  closed. (A response would need the id of a request; a breach often has none.)
- Any cutting of the same bytes gives the same events.

Not here: sockets, deadlines, which methods exist, whether `hello` was said (the link decides, and calls `greeted`).
Source: MessagePack-RPC specification (spec.md), section MessagePack-RPC Protocol specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]
from msgspec import Struct

from coworkd.wire.limits import (
    FROM_GUEST,
    FROM_HOST,
    UINT32_MAX,
    Limits,
    LocalLimitError,
    LocalProtocolError,
    RemoteLimitError,
    RemoteProtocolError,
    Role,
)
from coworkd.wire.scanner import FrameScanner

_SMALL_BYTES = 4096
"""So few bytes cannot break `Limits.items` or `Limits.values`; what we compose ourselves is never 32 deep."""
_PACKER_BYTES = 4096
"""What a packer has room for to begin with; by itself it takes 256 KiB, for every link and for each that ended until it is collected."""
_JOIN_BYTES = 256
"""So many bytes at least are joined to an unfinished message at a time: more than most answers have, and not worth a scan each."""


class Request(Struct, frozen=True, kw_only=True):
    """The host calls `method`; it must be answered once, with `send_response` or `send_error` of the same id."""

    id: int
    method: str
    params: dict[str, Any]


class Response(Struct, frozen=True, kw_only=True):
    """The answer to request `id`: `error` as it travelled (see `fault.parse_fault`) or None, and then `result`."""

    id: int
    error: dict[str, Any] | None
    result: dict[str, Any] | None


class Notification(Struct, frozen=True, kw_only=True):
    """An event; nobody answers it."""

    method: str
    params: dict[str, Any]


Event = Request | Response | Notification


class Connection:
    """The state of one link's wire. Not thread-safe; no method blocks.

    `role` is this side. `limits` is what this side accepts, by default `FROM_HOST` for a guest and `FROM_GUEST` for a
    host; what it sends is checked against the other.
    """

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        self.role = role
        accepted, sent = (FROM_HOST, FROM_GUEST) if role == "guest" else (FROM_GUEST, FROM_HOST)
        self._limits = limits or accepted
        self._peer_limits = sent
        self._scanner = FrameScanner(self._limits)
        self._send_frame_bytes = sent.fresh_frame_bytes
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._next = b""
        """What came after the beginning of a message that is in the buffer, unless all of it is there too; else so much of it:"""
        self._joined = 0
        self._outstanding: set[int] = set()
        self._last_id = 0
        self._failure: RemoteProtocolError | None = None
        self._packer = msgpack.Packer(buf_size=_PACKER_BYTES)

    # -- receiving

    def greeted(self) -> None:
        """`hello` was answered: from the next message on the larger frame caps hold, both ways."""
        self._scanner.frame_bytes = self._limits.frame_bytes
        self._send_frame_bytes = self._peer_limits.frame_bytes

    @property
    def outstanding(self) -> int:
        """How many requests have no answer yet."""
        return len(self._outstanding)

    def receive_data(self, data: bytes) -> None:
        """Take bytes that came. Call `next_event` until it returns None before the next `receive_data`.

        At most one message's cap and `len(data)` bytes are kept. Raises the earlier error once the connection failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._start == len(self._buffer):
            self._buffer = data
        else:
            if self._next:
                self._join(len(self._next))
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            else:
                del self._buffer[: self._start]
            self._next = data
        self._start = 0

    def receive_eof(self) -> None:
        """The peer will send no more. Raises `RemoteProtocolError` (`truncated`) if that is inside a message."""
        if self._failure is not None:
            raise self._failure
        if self._start != len(self._buffer):
            self._fail(RemoteProtocolError("the stream ended inside a message", rule="truncated"))

    def next_event(self) -> Event | None:
        """Return the next event, or None if more bytes are needed. Raises `RemoteProtocolError`, for good."""
        if self._failure is not None:
            raise self._failure
        if self._start == len(self._buffer):
            return None
        try:
            while (end := self._scanner.scan(self._buffer, self._start)) is None:
                if not self._next:
                    return None
                self._join(max(self._scanner.missing_bytes, _JOIN_BYTES))
            message = _decode(self._buffer, self._start, end)
            self._pass_to(end)
            self._scanner.reset()
            return self._event(message)
        except RemoteProtocolError as error:
            self._fail(error)

    def _join(self, count: int) -> None:
        """Bring `count` more bytes together with the beginning of their message: that is copied, not what is behind it."""
        self._buffer += memoryview(self._next)[self._joined : self._joined + count]
        self._joined += count
        if self._joined >= len(self._next):
            self._next, self._joined = b"", 0

    def _pass_to(self, end: int) -> None:
        """The message that ends there was taken. What is behind one that was joined lies where it came."""
        self._start = end
        if self._next and (behind := self._joined - (len(self._buffer) - end)) >= 0:
            self._buffer, self._start = self._next, behind
            self._next, self._joined = b"", 0

    def _event(self, message: list[Any]) -> Event:
        kind = message[0]
        if len(message) == 4 and type(kind) is int and kind == 0:
            return self._request(message[1], message[2], message[3])
        if len(message) == 4 and type(kind) is int and kind == 1:
            return self._response(message[1], message[2], message[3])
        if len(message) == 3 and type(kind) is int and kind == 2:
            return Notification(method=_method(message[1]), params=_params(message[2]))
        raise RemoteProtocolError(
            "a message is neither [0, id, method, params], [1, id, error, result] nor [2, method, params]",
            rule="message-shape",
        )

    def _request(self, request_id: Any, method: Any, params: Any) -> Request:
        if self.role == "host":
            raise RemoteProtocolError("a guest sends no requests", rule="direction")
        event = Request(id=_id(request_id), method=_method(method), params=_params(params))
        if event.id in self._outstanding:
            raise RemoteProtocolError(f"request id {event.id} is used again before it was answered", rule="id-reused")
        self._outstanding.add(event.id)
        return event

    def _response(self, request_id: Any, error: Any, result: Any) -> Response:
        if self.role == "guest":
            raise RemoteProtocolError("a host sends no responses: a guest asks nothing", rule="direction")
        if not isinstance(result if error is None else error, dict) or (error is not None and result is not None):
            raise RemoteProtocolError("of a response exactly one of error and result is a map", rule="result")
        event = Response(id=_id(request_id), error=error, result=result)
        if event.id not in self._outstanding:
            raise RemoteProtocolError(f"a response to id {event.id}, which is not outstanding", rule="id-unknown")
        self._outstanding.remove(event.id)
        return event

    def _fail(self, error: RemoteProtocolError) -> NoReturn:
        self._failure = error
        self._buffer = self._next = b""
        self._start = 0
        raise error

    # -- sending

    def send_request(self, method: str, params: Mapping[str, Any]) -> tuple[int, bytes]:
        """Return a fresh id and the bytes to send. Hosts only. On `LocalLimitError` nothing is outstanding."""
        if self.role != "host":
            raise LocalProtocolError("a guest sends no requests", rule="direction")
        request_id = self._last_id
        while request_id in self._outstanding:
            request_id = (request_id + 1) & UINT32_MAX
        encoded = self._pack([0, request_id, method, [params]])
        self._last_id = (request_id + 1) & UINT32_MAX
        self._outstanding.add(request_id)
        return request_id, encoded

    def send_response(self, request_id: int, result: Any) -> bytes:
        """Return the bytes of a good answer. Raises `LocalLimitError` if it is too large: send an error then."""
        return self._answer(request_id, None, result)

    def send_error(self, request_id: int, error: Mapping[str, Any]) -> bytes:
        """Return the bytes of a failed answer; `error` is what `fault.compose_fault` made."""
        return self._answer(request_id, error, None)

    def send_notification(self, method: str, params: Mapping[str, Any]) -> bytes:
        """Return the bytes of an event. For stream data see `stream.StreamEvents`, which does not copy the payload."""
        return self._pack([2, method, [params]])

    def _answer(self, request_id: int, error: Mapping[str, Any] | None, result: Any) -> bytes:
        if self.role != "guest" or request_id not in self._outstanding:
            raise LocalProtocolError(f"request {request_id} is not waiting for an answer", rule="id-unknown")
        encoded = self._pack([1, request_id, error, result])
        self._outstanding.remove(request_id)
        return encoded

    def _pack(self, message: list[Any]) -> bytes:
        """Encode, and refuse what the peer would refuse: a message it must not get would cost the whole link."""
        try:
            encoded: bytes = self._packer.pack(message)
        except (TypeError, ValueError, OverflowError) as error:
            self._packer = msgpack.Packer(buf_size=_PACKER_BYTES)
            raise LocalProtocolError(f"a message cannot be encoded: {error}", rule="format") from error
        size, limit = len(encoded), self._send_frame_bytes
        if size > limit:
            raise LocalLimitError(
                f"a message of {size} bytes is larger than the {limit} the other side accepts",
                rule="frame-bytes",
                limit=limit,
            )
        if size > _SMALL_BYTES:
            _check_composed(encoded, self._peer_limits)
        return encoded


def compose_notification(method: str, params: Mapping[str, Any]) -> bytes:
    """The bytes of an event, the same for every link; for what is told to many. Raises `LocalProtocolError`."""
    return _FOR_ALL.send_notification(method, params)


_FOR_ALL = Connection("guest")
"""Of no link: it was never greeted, so what it composes is for any."""


def _check_composed(encoded: bytes, limits: Limits) -> None:
    scanner = FrameScanner(limits)
    scanner.frame_bytes = len(encoded)
    try:
        scanner.scan(encoded, 0)
    except RemoteLimitError as error:
        raise LocalLimitError(error.message, rule=error.rule) from error


def _decode(buffer: bytes | bytearray, start: int, end: int) -> list[Any]:
    """Decode one measured message; the scanner has seen that it is an array of 3 or 4 values."""
    with memoryview(buffer) as whole, whole[start:end] as view:
        try:
            message: list[Any] = msgpack.unpackb(view, raw=False, strict_map_key=False, object_pairs_hook=_text_map)
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("a text is not UTF-8; send bin where it is allowed", rule="utf-8") from error
    return message


def _text_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if type(key) is not str:
            raise RemoteProtocolError("the key of a map is not text", rule="map-key")
        if key in made:
            raise RemoteProtocolError(f"the key {key[:64]!r} stands twice in one map", rule="map-key")
        made[key] = value
    return made


def _id(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= UINT32_MAX:
        raise RemoteProtocolError("a message id is not an integer from 0 to 4294967295", rule="id")
    return value


def _method(value: Any) -> str:
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("a method name is not UTF-8", rule="utf-8") from error
    if type(value) is not str:
        raise RemoteProtocolError("a method name is not text", rule="message-shape")
    return value


def _params(value: Any) -> dict[str, Any]:
    if value == []:
        return {}
    if type(value) is not list or len(value) != 1 or type(value[0]) is not dict:
        raise RemoteProtocolError("parameters are not exactly one map in an array, [{…}]", rule="params")
    params: dict[str, Any] = value[0]
    return params
