"""coworkd's end of a conversation with a worker, or with a folder's file system: requests out, answers and notices in.

Rules
- Words are the caller's. A request and its answer carry the same `id`, which is filled in here; what comes without an `id` is a notice,
  and is handed over synchronously and in order.
- At most `ASK_LIMIT` requests are on their way at once; further ones wait. Whoever stops waiting loses the answer, and the descriptors
  that come with it are closed.
- A peer that ends, or breaks the words, fails every waiting request with `ConnectionResetError`, and all later ones.
- Whoever receives a descriptor owns it; those that are sent stay the sender's.

The link is nobody's until `serve` runs: its owner starts that once. It knows nothing of starting a worker anew.
Source: unix(7).
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
import trio
from msgspec import Struct, structs

from coworkd.system import packet

ASK_LIMIT = 256
_Reply = TypeVar("_Reply")
_encoder = msgspec.msgpack.Encoder()


class _Waiting(Generic[_Reply]):
    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: tuple[_Reply, list[int]] | None = None


class WorkerLink(Generic[_Reply]):
    """Owns the socket `fd` from here on, until `close` or the end of `serve`."""

    def __init__(
        self,
        fd: int,
        *,
        decoder: msgspec.msgpack.Decoder[_Reply],
        on_notice: Callable[[_Reply, list[int]], None] | None = None,
    ) -> None:
        """`on_notice` owns the descriptors it is given, and must not raise; without it notices are dropped."""
        self._socket = trio.socket.from_stdlib_socket(socket.socket(fileno=fd))
        self._decoder = decoder
        self._on_notice = on_notice
        self._sending = trio.Lock()
        self._room = trio.Semaphore(ASK_LIMIT)
        self._waiting: dict[int, _Waiting[_Reply]] = {}
        self._last_id = 0
        self.why: str | None = None
        """Why it has ended, None while it lives."""

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive until the peer ends; returns then. Cancelled or not, the socket is closed and whoever waits is told."""
        task_status.started()
        try:
            while self.why is None:
                data, ancillary, flags, _ = await self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
                message, fds = packet.unpack(data, ancillary, flags)
                if not message:
                    self._end("it has ended")
                    return
                self._take(message, fds)
        except (OSError, trio.ClosedResourceError, packet.BrokenPacket, *packet.UNDECODABLE) as error:
            self._end(f"it broke off: {error}")
        finally:
            self._end("it was closed")

    async def ask(self, request: Struct, fds: Iterable[int] = ()) -> tuple[_Reply, list[int]]:
        """The answer and its descriptors, the caller's now; `request.id` is filled in. Raises `ConnectionResetError`."""
        async with self._room:
            self._last_id += 1
            number = self._last_id
            waiting: _Waiting[_Reply] = _Waiting()
            self._waiting[number] = waiting
            try:
                await self.tell(structs.replace(request, id=number), fds)
                await waiting.answered.wait()
            except BaseException:
                self._forget(waiting)
                raise
            finally:
                self._waiting.pop(number, None)
        if waiting.answer is None:
            raise self._ended()
        return waiting.answer

    async def tell(self, message: Struct, fds: Iterable[int] = ()) -> None:
        """Send what is not answered. Raises `ConnectionResetError`."""
        async with self._sending:
            if self.why is not None:
                raise self._ended()
            data, ancillary, memfd = packet.pack(_encoder.encode(message), fds)
            try:
                await self._socket.sendmsg(data, ancillary)
            except (OSError, trio.ClosedResourceError) as error:
                self._end(f"it takes nothing any more: {error}")
                raise self._ended() from error
            finally:
                if memfd >= 0:
                    os.close(memfd)

    def close(self) -> None:
        """End the conversation, which ends a worker; may be called again."""
        self._end("it was closed")

    def _take(self, message: bytes, fds: list[int]) -> None:
        try:
            reply = self._decoder.decode(message)
        except packet.UNDECODABLE:
            _close_all(fds)
            raise
        number = getattr(reply, "id", None)
        waiting = None if number is None else self._waiting.pop(number, None)
        if waiting is not None:
            waiting.answer = reply, fds
            waiting.answered.set()
        elif number is None and self._on_notice is not None:
            self._on_notice(reply, fds)
        else:
            _close_all(fds)

    def _forget(self, waiting: _Waiting[_Reply]) -> None:
        if waiting.answer is not None:
            _close_all(waiting.answer[1])

    def _end(self, why: str) -> None:
        if self.why is not None:
            return
        self.why = why
        self._socket.close()
        for waiting in self._waiting.values():
            waiting.answered.set()
        self._waiting.clear()

    def _ended(self) -> ConnectionResetError:
        return ConnectionResetError(errno.ECONNRESET, f"the worker does not answer: {self.why}")


async def ask_once(
    fd: int, request: Struct, *, decoder: msgspec.msgpack.Decoder[_Reply], within_s: float = math.inf
) -> _Reply:
    """The answer of a worker that is there for this one errand; descriptors that come with it are closed. `fd` is, whatever happens.

    Raises `ConnectionResetError` with why it does not answer, `trio.TooSlowError` where it has not in time; outside of any nursery.
    """
    link = WorkerLink(fd, decoder=decoder)
    answered: list[_Reply] = []
    why: str | None = None
    with trio.move_on_after(within_s) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.serve)
            try:
                answer, fds = await link.ask(request)
                _close_all(fds)
                answered.append(answer)
            except ConnectionResetError:
                why = link.why
            finally:
                link.close()
    if answered:
        return answered[0]
    if scope.cancelled_caught:
        raise trio.TooSlowError
    raise ConnectionResetError(errno.ECONNRESET, f"the worker does not answer, {why}")


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
