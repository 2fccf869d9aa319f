"""The control socket of a keeper: docs/protocol.md's wire on BUNDLE/run/keeper.sock, for this user alone.

Rules
- The socket is 0600 from its first moment, in a directory that is its owner's. Whoever may connect may do everything.
- `hello` comes first. Calls of a link run side by side, `IN_FLIGHT` at most; a link that breaks the wire is closed. `LINKS` at most.
- A call that was begun ends with its link, but for what it has set going: a stop goes on.
- A `Trouble` travels as an error with `details.trouble` and `details.remedy`; what is no trouble is INTERNAL and is logged.

Not here: what the methods do (`keeper`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio
from msgspec import Struct

from coworkd import __version__
from coworkd.model.errors import CoworkError, InternalError, LimitExceeded, Unauthenticated, Unimplemented
from coworkd.wire.connection import Connection, Event, Request
from coworkd.wire.convert import compose_answer, nearest, parse_params
from coworkd.wire.fault import compose_fault
from coworkd.wire.limits import PROTOCOL_VERSION, LocalLimitError, LocalProtocolError, RemoteProtocolError
from host_stub.bundle_files import telling
from host_stub.keeper_words import fault_of
from host_stub.words import Trouble

LINKS = 64
IN_FLIGHT = 32
BACKLOG = 32
RECEIVE_BYTES = 64 * 1024
SEND_S = 10.0
"""A peer that takes nothing for so long is gone."""

_log = logging.getLogger("cowork-vm.keeper")


class Method(Struct, frozen=True, kw_only=True):
    """`params` is parsed strictly; `call` gives a Struct or a map."""

    params: type[Struct]
    call: Callable[[Any], Awaitable[Any]]


class KeeperServer:
    """`run` once."""

    def __init__(self, path: Path, methods: Mapping[str, Method], *, boot_id: str) -> None:
        self._path = path
        self._methods = methods
        self._boot_id = boot_id

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the socket is removed then. Raises `Trouble` where it cannot be made."""
        listener = trio.socket.from_stdlib_socket(_listen(self._path))
        limiter = trio.CapacityLimiter(LINKS)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    async with limiter:
                        pass  # no more is accepted than can be served
                    accepted, _ = await listener.accept()
                    nursery.start_soon(self._serve, trio.SocketStream(accepted), limiter)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            await _Link(stream, self._methods, self._boot_id).run()


class _Link:
    def __init__(self, stream: trio.SocketStream, methods: Mapping[str, Method], boot_id: str) -> None:
        self._stream = stream
        self._methods = methods
        self._boot_id = boot_id
        self._connection = Connection("guest")
        self._sending = trio.Lock()
        self._greeted = False

    async def run(self) -> None:
        async with self._stream, trio.open_nursery() as nursery:
            try:
                while data := await self._receive():
                    self._connection.receive_data(data)
                    while (event := self._connection.next_event()) is not None:
                        await self._take(event, nursery)
            except RemoteProtocolError as error:
                await self._send(self._connection.send_notification("link.error", compose_fault(error)))
            nursery.cancel_scope.cancel()

    async def _take(self, event: Event, nursery: trio.Nursery) -> None:
        if not isinstance(event, Request):
            return
        if event.method == "hello" and not self._greeted:
            # What a client offers is not looked at further: there is one version, and the socket is its owner's.
            await self._answer(event.id, _hello(self._boot_id))
            self._connection.greeted()
            self._greeted = True
        elif not self._greeted:
            await self._refuse(event.id, Unauthenticated("say hello first"))
        elif self._connection.outstanding > IN_FLIGHT:
            await self._refuse(event.id, LimitExceeded(f"more than {IN_FLIGHT} calls at once on one link"))
        else:
            nursery.start_soon(self._call, event)

    async def _call(self, request: Request) -> None:
        method = self._methods.get(request.method)
        try:
            if method is None:
                near = nearest(request.method, list(self._methods))
                raise Unimplemented(f"no method {request.method[:64]!r}" + (f"; did you mean {near}?" if near else ""))
            answer = compose_answer(await method.call(parse_params(request.params, method.params)))
        except Trouble as trouble:
            await self._refuse(request.id, fault_of(trouble))
        except CoworkError as error:
            await self._refuse(request.id, error)
        except Exception:  # noqa: BLE001 - the boundary: told to the caller, and logged
            _log.exception("%s failed", request.method)
            await self._refuse(request.id, InternalError(f"{request.method} failed; see keeper.log"))
        else:
            await self._answer(request.id, answer)

    async def _answer(self, request_id: int, answer: Any) -> None:
        try:
            frame = self._connection.send_response(request_id, answer)
        except LocalLimitError as error:
            await self._refuse(request_id, error)
        except LocalProtocolError as error:
            _log.error("an answer cannot be sent: %s", error)
            await self._refuse(request_id, error)
        else:
            await self._send(frame)

    async def _refuse(self, request_id: int, error: CoworkError) -> None:
        await self._send(self._connection.send_error(request_id, compose_fault(error)))

    async def _receive(self) -> bytes:
        """Empty at the end, whichever way it came: a client that is killed before it read all resets the link."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        return b""

    async def _send(self, frame: bytes) -> None:
        """A client that has gone is no error of whoever answers: `_receive` sees its end."""
        async with self._sending:
            with (
                trio.move_on_after(SEND_S) as scope,
                contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                await self._stream.send_all(frame)
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self._stream)


def _hello(boot_id: str) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "boot_id": boot_id,
        "features": ["keeper"],
        "stages": [],
        "degraded": {},
    }


def _listen(path: Path) -> socket.socket:
    """Only under the bundle's lock: whatever has the name is left over."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with telling("listening at", path):
            path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
