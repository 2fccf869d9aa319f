"""One bridge: listens, leads each connection on, and begins again whatever happens to its listener.

Rules
- A listener that cannot be made, or fails, is tried again after a pause that doubles up to `PAUSE_LAST_S`; where it is only a session that
  is not there the pause stays short, since a session that opens gets its bridges.
- One that listens in a session is compared with the session every `LOOK_S`: when the session has other namespaces, or none, the listener
  and all connections through it end, for they belong to nobody any more.
- At most `CONNECTIONS` at once; more wait in the kernel's backlog, which is bounded too.
- What keeps it from working is told (`on_state`), and what kept a connection from being led on is kept as its last error.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable

import trio

from coworkd.model.bridge import BridgeInfo, BridgeOrigin, BridgeSpec, BridgeState, SessionEnd
from coworkd.model.errors import CoworkError, InvalidState, NotFound
from coworkd.services.bridges_ends import Ends, Listener
from coworkd.services.bridges_relay import Counts, Pipes, Relay
from coworkd.services.streams_socket import set_reset

CONNECTIONS = 256
CONNECT_S = 10.0
IDLE_S = 3600.0
LOOK_S = 2.0
PAUSE_FIRST_S = 0.25
PAUSE_LAST_S = 30.0
ACCEPT_PAUSE_S = 0.1
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger("coworkd.bridge")


class Bridge:
    """One bridge. `run` in a task of its own, until `close`."""

    def __init__(
        self,
        spec: BridgeSpec,
        *,
        origin: BridgeOrigin,
        ends: Ends,
        pipes: Pipes,
        on_state: Callable[[str | None], None],
        idle_s: float = IDLE_S,
        connections: int = CONNECTIONS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_state` is told why it does not listen, or None."""
        self.spec = spec
        self.origin = origin
        self.state: BridgeState = "waiting"
        self.connections = 0
        self.connections_total = 0
        self.failed_total = 0
        self.counts = Counts()
        self.opened_at = clock()
        self.closing = False
        """Somebody asked for its end."""
        self.closed = trio.Event()
        self._ends = ends
        self._pipes = pipes
        self._on_state = on_state
        self._idle_s = idle_s
        self._clock = clock
        self._room = trio.Semaphore(connections)
        self._scope = trio.CancelScope()
        self._through: set[trio.CancelScope] = set()
        self._look = trio.Event()
        self._last_error: str | None = None
        self._last_error_at: float | None = None

    @property
    def info(self) -> BridgeInfo:
        return BridgeInfo(
            name=self.spec.name,
            listen=str(self.spec.listen),
            connect=str(self.spec.connect),
            origin=self.origin,
            state=self.state,
            connections=self.connections,
            connections_total=self.connections_total,
            failed_total=self.failed_total,
            sent_bytes=self.counts.sent,
            received_bytes=self.counts.received,
            opened_at=self.opened_at,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
        )

    def close(self) -> None:
        """End it with all its connections; `closed` is set when that is done. Idempotent."""
        self.closing = True
        self._scope.cancel()

    def look(self) -> None:
        """Something about a session has changed: do not wait for the next look."""
        self._look.set()

    async def run(self, listener: Listener | None = None) -> None:
        """Serve until `close`, on `listener` first where there is one already. Owns it."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    while True:
                        listener = listener or await self._listen_at_last()
                        await self._serve(listener, nursery)
                        listener = None
        finally:
            if listener is not None:
                listener.close()
            self.state = "closed"
            self._on_state(None)
            self.closed.set()

    # -- listening ----------------------------------------------------------------------------------------------

    async def _listen_at_last(self) -> Listener:
        self.state = "waiting"
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                return await self._ends.listen(self.spec.listen)
            except (OSError, CoworkError) as error:
                absent = isinstance(self.spec.listen, SessionEnd) and isinstance(error, NotFound | InvalidState)
                self._note(error)
                self._on_state(None if absent else f"{self.spec.listen} cannot be listened on: {_words(error)}")
                await self._pause(min(pause_s, LOOK_S) if absent else pause_s)
                pause_s = min(pause_s * 2, PAUSE_LAST_S)

    async def _serve(self, listener: Listener, nursery: trio.Nursery) -> None:
        """Accept until the listener fails or its session is another one; a pause then keeps what fails at once from spinning."""
        self.state = "listening"
        self._on_state(None)
        try:
            async with trio.open_nursery() as listening:
                if isinstance(self.spec.listen, SessionEnd):
                    listening.start_soon(self._watch, self.spec.listen.session, listener, listening.cancel_scope)
                listening.start_soon(self._accept, listener, nursery, listening.cancel_scope)
        finally:
            listener.close()
        self.state = "waiting"
        await self._pause(PAUSE_FIRST_S)

    async def _accept(self, listener: Listener, nursery: trio.Nursery, scope: trio.CancelScope) -> None:
        while True:
            await self._room.acquire()
            try:
                accepted = await listener.accept()
            except OSError as error:
                self._room.release()
                self._note(error)
                if error.errno not in _EXHAUSTED:
                    _log.warning("bridge %s listens anew: %s", self.spec.name, error)
                    scope.cancel()
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            except BaseException:
                self._room.release()
                raise
            nursery.start_soon(self._lead_on, accepted)

    async def _watch(self, session: str, listener: Listener, scope: trio.CancelScope) -> None:
        while True:
            await self._pause(LOOK_S)
            try:
                if await self._ends.network_of(session) == listener.network:
                    continue
                reason = f"session {session} was opened anew"
            except (NotFound, InvalidState):
                reason = f"session {session} is not there"
            except (OSError, CoworkError) as error:
                # The launcher is away for a moment: nothing is known, so nothing is changed.
                _log.debug("bridge %s: %s", self.spec.name, error)
                continue
            _log.info("bridge %s: %s", self.spec.name, reason)
            for through in self._through:
                through.cancel()
            scope.cancel()

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._look.wait()
        self._look = trio.Event()

    # -- connections --------------------------------------------------------------------------------------------

    async def _lead_on(self, accepted: socket.socket) -> None:
        self.connections += 1
        self.connections_total += 1
        scope = trio.CancelScope()
        self._through.add(scope)
        try:
            with scope:
                await self._join(accepted)
        finally:
            accepted.close()
            self._through.discard(scope)
            self.connections -= 1
            self._room.release()

    async def _join(self, accepted: socket.socket) -> None:
        connected: socket.socket | None = None
        try:
            connected = await self._connect()
        finally:
            if connected is None:
                set_reset(accepted)
        if connected is not None:
            relay = Relay(accepted, connected, pipes=self._pipes, counts=self.counts, idle_s=self._idle_s)
            error = await relay.run()
            if error is not None:
                self._note(error)

    async def _connect(self) -> socket.socket | None:
        try:
            with trio.fail_after(CONNECT_S):
                return await self._ends.connect(self.spec.connect)
        except (OSError, CoworkError, UnicodeError) as error:  # the latter: a name that no resolver takes
            self._note(error)
        except trio.TooSlowError:
            self._note(TimeoutError(errno.ETIMEDOUT, f"{self.spec.connect} did not answer within {CONNECT_S:g} s"))
        self.failed_total += 1
        return None

    def _note(self, error: Exception) -> None:
        self._last_error = _words(error)
        self._last_error_at = self._clock()


def _words(error: Exception) -> str:
    if isinstance(error, CoworkError):
        return error.message
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
