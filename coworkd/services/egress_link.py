"""coworkd-egress, from coworkd's side: one conversation that is begun again whenever it breaks.

Rules
- `Begin` is the first request; until it is answered every other call raises `Unavailable`.
- Every request has one answer. A request that was sent is waited for even if its caller is cancelled: it may have handed over descriptors.
  One that is not answered within `ANSWER_S` ends the conversation: whoever hangs counts as away, and holds nobody up for long.
- `Told` is given to `on_told` synchronously and in order. What coworkd-egress serves is its own to keep: a conversation that ends
  changes nothing there.

Descriptors given to `ask` stay the caller's.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio
from msgspec import structs

from coworkd.model import egress as words
from coworkd.model.errors import CoworkError, InternalError, Unavailable
from coworkd.system import packet

ANSWER_S = 20.0
"""Seconds in which anything is answered, the making of a key on a slow machine included."""
SHORT_ANSWER_S = 5.0
"""Of `Begin` and `Quit`: for these coworkd's own end waits."""
_RETRY_S = 0.1
_RETRY_MAX_S = 2.0
_STEADY_S = 5.0
"""A conversation that ends sooner counts as another failure: who dies as often as it is started is started ever less often."""
_log = logging.getLogger("coworkd.egress")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(words.Reply)

Connect = Callable[[], Awaitable[trio.socket.SocketType]]
Told = Callable[[tuple[words.EgressEvent, ...]], None]
Begun = Callable[[words.Begun], Awaitable[None]]


class _Waiting:
    """One request on its way; `answer` stays None where the conversation ended first."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: words.Answer | None = None


class EgressLink:
    """The conversation. `serve` keeps it; `begin` gives the request it starts with."""

    def __init__(
        self,
        connect: Connect,
        *,
        begin: Callable[[], words.Begin],
        on_pid: Callable[[int], None],
        on_begun: Begun,
        on_told: Told,
        on_state: Callable[[str | None], None],
    ) -> None:
        """`on_pid` comes before any `on_told` of that coworkd-egress; `on_begun` may `ask`.

        `on_state` is told why coworkd-egress is away or limited, or None.
        """
        self._connect = connect
        self._begin = begin
        self._on_pid = on_pid
        self._on_begun = on_begun
        self._on_told = on_told
        self._on_state = on_state
        self._socket: trio.socket.SocketType | None = None
        self._sending = trio.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0
        self._quitting = False
        self.pid: int | None = None
        self.degraded: tuple[str, ...] = ()
        self.started = trio.Event()
        """Set once the first conversation has begun."""

    async def serve(self) -> None:
        """Connect, begin and receive, again and again, until cancelled or `quit`."""
        delay_s = _RETRY_S
        while not self._quitting:
            try:
                connection = await self._connect()
            except (OSError, CoworkError) as error:
                self._on_state(f"coworkd-egress cannot be reached, nothing gets out: {_words(error)}")
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
                continue
            began = trio.current_time()
            self._socket = connection
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._start, connection)
                    await self._receive(connection)
                    self._let_go(connection)
            finally:
                self._let_go(connection)
            if not self._quitting:
                self._on_state("coworkd-egress is gone, nothing gets out; it is being started again")
                if trio.current_time() - began >= _STEADY_S:
                    delay_s = _RETRY_S
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)

    async def ask(self, request: words.Request, fds: Sequence[int] = (), *, within_s: float = ANSWER_S) -> words.Answer:
        """Send a request and wait for its answer. Raises `Unavailable` where there is none to be had, `InternalError` for a refusal."""
        if self.pid is None and not isinstance(request, words.Begin):
            raise Unavailable("coworkd-egress is away; it is being started again")
        connection = self._socket
        waiting = _Waiting()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + within_s) as waited:
            self._last_id += 1
            number = self._last_id
            self._waiting[number] = waiting
            try:
                await self._send(structs.replace(request, id=number), fds)
            except CoworkError:
                self._waiting.pop(number, None)
                raise
            await waiting.answered.wait()
        if waited.cancelled_caught and connection is not None and connection is self._socket:
            _log.error("coworkd-egress has not answered %s for %g s", type(request).__name__, within_s)
            self._hang_up(connection)
        if waiting.answer is None:
            raise Unavailable("coworkd-egress went away during the call; it is being started again")
        if isinstance(waiting.answer, words.Refused):
            raise InternalError(f"coworkd-egress refused: {waiting.answer.message}", stage="egress")
        return waiting.answer

    async def recorded(self, through: int) -> None:
        """Say that every event up to `through` is durable; one that is away is told when it asks again."""
        try:
            await self._send(words.Recorded(through=through), ())
        except Unavailable:
            _log.debug("coworkd-egress went before it heard of %d", through)

    async def quit(self) -> None:
        """End coworkd-egress; it is not connected to again."""
        self._quitting = True
        if self.pid is not None:
            await self.ask(words.Quit(id=0), within_s=SHORT_ANSWER_S)

    async def _start(self, connection: trio.socket.SocketType) -> None:
        try:
            begun = await self.ask(self._begin(), within_s=SHORT_ANSWER_S)
        except CoworkError as error:
            _log.error("coworkd-egress does not begin: %s", error.message)
            self._on_state(f"coworkd-egress does not serve, nothing gets out: {error.message}")
            return
        if self._socket is not connection:  # it ended before its answer was looked at
            return
        assert isinstance(begun, words.Begun)
        self.pid, self.degraded = begun.pid, begun.degraded
        self._on_state("; ".join(begun.degraded) or None)
        await self._on_begun(begun)
        self.started.set()

    async def _receive(self, connection: trio.socket.SocketType) -> None:
        while True:
            try:
                data, ancillary, flags, _ = await connection.recvmsg(*packet.RECEIVE_ARGUMENTS)
                message, fds = packet.unpack(data, ancillary, flags)
                for fd in fds:  # it has nothing to hand over
                    os.close(fd)
                if not message:
                    return
                reply = _decoder.decode(message)
            except (OSError, packet.BrokenPacket, *packet.UNDECODABLE) as error:
                _log.error("coworkd-egress broke off: %s", error)
                return
            if isinstance(reply, words.Told):
                self._on_told(reply.events)
                continue
            if isinstance(reply, words.Begun):
                # What it tells comes right behind, maybe before whoever waits for this answer has run.
                self._on_pid(reply.pid)
            waiting = self._waiting.pop(reply.id, None)
            if waiting is not None:
                waiting.answer = reply
                waiting.answered.set()

    async def _send(self, request: words.Request, fds: Sequence[int]) -> None:
        data, ancillary, memfd = packet.pack(_encoder.encode(request), fds)
        try:
            async with self._sending:
                if self._socket is None:
                    raise Unavailable("coworkd-egress is away; it is being started again")
                await self._socket.sendmsg(data, ancillary)
        except OSError as error:
            raise Unavailable(f"coworkd-egress does not answer: {error.strerror}") from error
        finally:
            if memfd >= 0:
                os.close(memfd)

    def _hang_up(self, connection: trio.socket.SocketType) -> None:
        """Whoever receives or sends on it finds its end."""
        with contextlib.suppress(OSError):
            connection.shutdown(trio.socket.SHUT_RDWR)
        self._let_go_of_askers()

    def _let_go(self, connection: trio.socket.SocketType) -> None:
        if self._socket is not connection:
            return
        connection.close()
        self._socket = None
        self._let_go_of_askers()

    def _let_go_of_askers(self) -> None:
        self.pid = None
        for waiting in self._waiting.values():
            waiting.answered.set()
        self._waiting.clear()


def _words(error: OSError | CoworkError) -> str:
    return error.message if isinstance(error, CoworkError) else error.strerror or str(error)
