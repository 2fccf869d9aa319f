"""One link: a connection of a host, from its first byte to its last.

Rules
- Only the method that opens a link (`hello`) is served before it was: others are `UNAUTHENTICATED`, and the link stays. It
  must have come whole `HELLO_S` after the link began. A failed one closes the link; a second one is refused.
- Requests run side by side, at most `IN_FLIGHT` of them; more are answered `RESOURCE_EXHAUSTED`. While the peer does not
  take its answers, nothing more is read from it.
- A call that changes something (`Method.mutating`) runs in the server's nursery and to its end, link or no link; its
  answer is dropped when the link is gone. All other calls end with the link.
- An answer to a small request is queued without a checkpoint after its handler returned: stream data of a source that
  the handler attached last cannot overtake it.
- A breach of the wire is told by the notification `link.error {code, message, details}`; nothing after it is read, and
  the link is closed when it was sent, or after `LAST_WORDS_S`. Notifications from a host are ignored.
- A host that promised in `hello` to say something every `keepalive_s` is gone when it has not for `SILENT_TURNS` of them, and the link is
  closed: a half-open one would never end by itself. Turns are counted, not time: a guest that slept wakes up in the same turn.
- `on_close` calls run exactly once, in reverse order of registering, after every source was detached.

It never touches another link. Sources: docs/protocol.md, V-1 to V-3, H-1 to H-5, N-5.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import trio

from coworkd.model.errors import (
    CoworkError,
    DeadlineExceeded,
    InternalError,
    InvalidState,
    LimitExceeded,
    Unauthenticated,
    Unavailable,
)
from coworkd.model.ports import Frames
from coworkd.rpc.dispatch import Dispatcher
from coworkd.rpc.methods import Method, MethodTable
from coworkd.rpc.transport import Transport
from coworkd.rpc.writer import Writer
from coworkd.wire.connection import Connection, Event, Notification, Request
from coworkd.wire.fault import compose_fault
from coworkd.wire.limits import LocalLimitError, LocalProtocolError, RemoteProtocolError

HELLO_S = 10.0
LAST_WORDS_S = 1.0
SILENT_TURNS = 3
IN_FLIGHT = 256
RECEIVE_BYTES = 64 * 1024
SMALL_ANSWER_BYTES = 64 * 1024

_log = logging.getLogger("coworkd.link")


class LinkOwner(Protocol):
    """What a link needs of its server."""

    @property
    def methods(self) -> MethodTable: ...

    @property
    def dispatcher(self) -> Dispatcher: ...

    @property
    def calls(self) -> trio.Nursery:
        """Where calls run that outlive their link."""

    async def admit(self, link: Link, /, *, client: str, protocol: int) -> None:
        """`link` said hello, and it was good. Raises `LimitExceeded` if there are too many links."""


class Link:
    """Implements `ports.LinkPort`. `run` once; it closes the transport."""

    def __init__(self, transport: Transport, owner: LinkOwner, *, name: str, received: bytes = b"") -> None:
        """`received` is what was read from the transport already and belongs to the link; `name` is for logs and audit."""
        self._transport = transport
        self._owner = owner
        self._name = name
        self._received = received
        self._connection = Connection("guest")
        self._writer = Writer(transport, name=name, overflowed=self._overflowed)
        self._scope = trio.CancelScope()
        self._hello_scope = trio.CancelScope()
        self._on_close: list[Callable[[], None]] = []
        self._in_flight = 0
        self._heard = False
        self._greeted = False
        self._finishing = False
        self._closed = False
        self.ended_by = "closed by the host"
        """Why the link ended, for the audit log."""

    # -- what services see

    @property
    def name(self) -> str:
        return self._name

    @property
    def greeted(self) -> bool:
        return self._greeted

    def notify(self, method: str, params: Mapping[str, Any], /) -> None:
        """As `LinkPort.notify`. What cannot be encoded, or is too large, is logged and left out."""
        if self._closed:
            return
        try:
            self._writer.put(self._connection.send_notification(method, params))
        except LocalProtocolError:
            _log.exception("link %s: %s could not be sent", self._name, method)

    def attach(self, source: Frames, /) -> None:
        self._writer.attach(source)

    def detach(self, source: Frames, /) -> None:
        self._writer.detach(source)

    def wake(self, source: Frames, /) -> None:
        self._writer.wake(source)

    def on_close(self, call: Callable[[], None], /) -> None:
        """On a link that is closed already, `call` is called at once."""
        if self._closed:
            call()
        else:
            self._on_close.append(call)

    # -- its life

    def close(self) -> None:
        """End it now; `run` returns soon. Idempotent."""
        self._scope.cancel()

    def _overflowed(self) -> None:
        self.ended_by = "the peer did not read"
        self.close()

    def finish(self, error: CoworkError | None = None) -> None:
        """Read no more, send what is queued (and `error` as `link.error`) within `LAST_WORDS_S`, then end. Idempotent."""
        if self._finishing:
            return
        if error is not None:
            self.ended_by = error.message
            self.notify("link.error", compose_fault(error))
        self._finishing = True
        self._hello_scope.cancel()

    async def run(self) -> None:
        """Serve until either side ends it. Never raises but for trio's `Cancelled`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read(nursery)
                    with trio.move_on_after(LAST_WORDS_S):
                        await self._writer.drain()
                    nursery.cancel_scope.cancel()
        finally:
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._transport.close()
        self._writer.close()
        while self._on_close:
            call = self._on_close.pop()
            try:
                call()
            except Exception:  # noqa: BLE001 - the others must hear of the end too
                _log.exception("link %s: a service failed while the link was closed", self._name)

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lost(error)
        self.close()

    async def _read(self, nursery: trio.Nursery) -> None:
        self._hello_scope.deadline = min(self._hello_scope.deadline, trio.current_time() + HELLO_S)
        try:
            with self._hello_scope:
                await self._read_events(nursery)
        except RemoteProtocolError as error:
            _log.warning("link %s broke the protocol (%s): %s", self._name, error.rule, error.message)
            self.finish(error)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lost(error)
            self.close()
        if self._hello_scope.cancelled_caught and not self._finishing:
            _log.warning("link %s said no hello within %g s, closing it", self._name, HELLO_S)
            self.finish(DeadlineExceeded(f"no whole hello came within {HELLO_S:g} s", rule="hello-deadline"))

    def _lost(self, error: Exception) -> None:
        self.ended_by = f"the peer is gone: {error or type(error).__name__}"
        _log.info("link %s: %s", self._name, self.ended_by)

    async def _read_events(self, nursery: trio.Nursery) -> None:
        data = self._received or await self._transport.receive(RECEIVE_BYTES)
        while data and not self._finishing:
            self._heard = True
            self._connection.receive_data(data)
            while not self._finishing and (event := self._connection.next_event()) is not None:
                await self._take(event, nursery)
            data = await self._transport.receive(RECEIVE_BYTES) if not self._finishing else b""
        if not self._finishing:
            self._connection.receive_eof()

    # -- its requests

    async def _take(self, event: Event, nursery: trio.Nursery) -> None:
        if not isinstance(event, Request):
            if isinstance(event, Notification):
                _log.debug("link %s: notification %.64r of the host is ignored", self._name, event.method)
            return
        if not self._writer.has_room:
            await self._writer.wait_room()
        try:
            method = self._admitted(event)
        except CoworkError as error:
            self._put_error(event.id, error)
            return
        self._in_flight += 1
        if method.opens_link:
            await self._open(event, method)
            keepalive_s = event.params.get("keepalive_s")
            if self._greeted and keepalive_s is not None:
                nursery.start_soon(self._watch_silence, float(keepalive_s))
            return
        (self._owner.calls if method.mutating else nursery).start_soon(self._serve, event, method)

    def _admitted(self, request: Request) -> Method:
        if self._greeted:
            method = self._owner.methods.find(request.method)
            if method.opens_link:
                raise InvalidState(f"{request.method} was said already; nothing changed")
        else:
            method = self._find_opening(request.method)
        if self._in_flight >= IN_FLIGHT:
            raise LimitExceeded(f"{IN_FLIGHT} calls of this link are running; wait for answers", limit=IN_FLIGHT)
        return method

    def _find_opening(self, name: str) -> Method:
        try:
            method = self._owner.methods.find(name)
        except CoworkError:
            method = None
        if method is None or not method.opens_link:
            raise Unauthenticated("say hello first: it must be the first call of a link")
        return method

    async def _open(self, request: Request, method: Method) -> None:
        """`hello`, in the reading task, so that what the host may send next depends on nothing but its answer."""
        try:
            answer = await self._owner.dispatcher.call(method, request.params, self)
            await self._owner.admit(self, client=request.params["client"], protocol=answer["protocol"])
        except CoworkError as error:
            self._put_error(request.id, error)
            self.finish()
            return
        finally:
            self._in_flight -= 1
        self._put_answer(request.id, answer)
        self._greeted = True
        self._connection.greeted()
        self._hello_scope.deadline = float("inf")

    async def _watch_silence(self, keepalive_s: float) -> None:
        silent = 0
        while silent < SILENT_TURNS:
            self._heard = False
            await trio.sleep(keepalive_s)
            silent = 0 if self._heard else silent + 1
        self.ended_by = f"the host has said nothing for {SILENT_TURNS} times {keepalive_s:g} s"
        _log.info("link %s: %s", self._name, self.ended_by)
        self.close()

    async def _serve(self, request: Request, method: Method) -> None:
        try:
            try:
                answer = await self._owner.dispatcher.call(method, request.params, self)
            except CoworkError as error:
                self._put_error(request.id, error)
                return
            except trio.Cancelled:
                self._put_error(request.id, Unavailable(f"{method.name} was cut off: coworkd or the link is closing"))
                raise
            frame = self._encode(request.id, answer)
            if len(frame) > SMALL_ANSWER_BYTES:
                await self._writer.wait_room()
            self._writer.put(frame)
        finally:
            self._in_flight -= 1

    def _put_answer(self, request_id: int, answer: Any) -> None:
        self._writer.put(self._encode(request_id, answer))

    def _put_error(self, request_id: int, error: CoworkError) -> None:
        fault = compose_fault(error)
        try:
            frame = self._connection.send_error(request_id, fault)
        except LocalProtocolError:
            _log.exception("link %s: the details of an error could not be sent", self._name)
            frame = self._connection.send_error(request_id, {**fault, "details": {}})
        self._writer.put(frame)

    def _encode(self, request_id: int, answer: Any) -> bytes:
        try:
            return self._connection.send_response(request_id, answer)
        except LocalLimitError as error:
            fault: CoworkError = LimitExceeded(f"the answer is too large to send: {error.message}; ask for less")
        except LocalProtocolError as error:
            _log.exception("link %s: an answer could not be encoded", self._name)
            fault = InternalError(f"the answer could not be encoded: {error.message}")
        return self._connection.send_error(request_id, compose_fault(fault))
