"""Two connected sockets, joined: what one says the other hears, by splice(2), until both have ended.

Rules
- A pipe is borrowed only while bytes are in it. Where there is none to be had (EMFILE), or a kind of socket cannot be spliced (EINVAL),
  bytes go by way of a buffer of ours: slower, never lost.
- Ends are passed on each way (shutdown); a reset, and a relay through which nothing moved for `idle_s`, ends both sides by a reset.
- After each chunk it is everybody else's turn. At most one chunk a direction is held.

Sources: splice(2), shutdown(2), socket(7) SO_LINGER.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import trio

from coworkd.services.streams_socket import set_reset
from coworkd.system.splice import open_pipe, splice

CHUNK_BYTES = 256 * 1024
COPY_BYTES = 64 * 1024
IDLE_PIPES = 16


class Counts:
    """Bytes of one bridge. `sent` went from the listening side to the other."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0


class Pipes:
    """Empty pipes, kept for the next who needs one. Owns those that are not borrowed."""

    def __init__(self) -> None:
        self._idle: list[tuple[int, int]] = []

    def borrow(self) -> tuple[int, int]:
        """An empty pipe, read end first. Raises `OSError` (EMFILE, ENFILE)."""
        return self._idle.pop() if self._idle else open_pipe(CHUNK_BYTES)

    def give_back(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Take a borrowed pipe back; one with bytes in it is never used again."""
        if empty and len(self._idle) < IDLE_PIPES:
            self._idle.append(pipe)
        else:
            _close(pipe)

    def close(self) -> None:
        """Close those that are here."""
        while self._idle:
            _close(self._idle.pop())


class Relay:
    """One connection through a bridge. Owns both sockets, which are closed when `run` returns."""

    def __init__(
        self, listening: socket.socket, connected: socket.socket, *, pipes: Pipes, counts: Counts, idle_s: float
    ) -> None:
        self._sides = (listening, connected)
        self._pipes = pipes
        self._counts = counts
        self._idle_s = idle_s
        self._scope = trio.CancelScope()
        self._error: OSError | None = None
        for side in self._sides:
            side.setblocking(False)

    async def run(self) -> OSError | None:
        """Return when both directions have ended; what broke it, or None. Cancelled, both sides are reset."""
        listening, connected = self._sides
        whole = False
        try:
            with self._scope:
                self._touch()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, listening, connected)
                    nursery.start_soon(self._pump, connected, listening)
            if self._scope.cancelled_caught and self._error is None:
                self._error = TimeoutError(errno.ETIMEDOUT, f"nothing moved for {self._idle_s:g} s")
            whole = self._error is None
        finally:
            for side in self._sides:
                if not whole:
                    set_reset(side)
                side.close()
        return self._error

    def _touch(self) -> None:
        self._scope.deadline = trio.current_time() + self._idle_s

    async def _pump(self, source: socket.socket, destination: socket.socket) -> None:
        copying = False
        try:
            while True:
                await trio.lowlevel.wait_readable(source)
                try:
                    more = await (self._copy if copying else self._splice)(source, destination)
                except _CannotSplice:
                    copying = True
                    continue
                if not more:
                    break
            with contextlib.suppress(OSError):  # it has ended both ways already
                destination.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._error = self._error or error
            self._scope.cancel()

    async def _splice(self, source: socket.socket, destination: socket.socket) -> bool:
        """Move a chunk; False at the source's end."""
        try:
            pipe = self._pipes.borrow()
        except OSError:
            return await self._copy(source, destination)
        left = 0
        try:
            try:
                left = splice(source.fileno(), pipe[1], CHUNK_BYTES)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise _CannotSplice from error
                raise
            if not left:
                return False
            while left:
                try:
                    moved = splice(pipe[0], destination.fileno(), left)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(destination)
                    continue
                left -= moved
                self._count(source, moved)
            return True
        finally:
            self._pipes.give_back(pipe, empty=not left)

    async def _copy(self, source: socket.socket, destination: socket.socket) -> bool:
        """As `_splice`, by way of a buffer."""
        try:
            view = memoryview(source.recv(COPY_BYTES))
        except BlockingIOError:
            return True
        if not view:
            return False
        while view:
            try:
                moved = destination.send(view, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(destination)
                continue
            view = view[moved:]
            self._count(source, moved)
        return True

    def _count(self, source: socket.socket, moved: int) -> None:
        self._touch()
        if source is self._sides[0]:
            self._counts.sent += moved
        else:
            self._counts.received += moved


class _CannotSplice(Exception):
    """This kind of socket has no splice."""


def _close(pipe: tuple[int, int]) -> None:
    for fd in pipe:
        os.close(fd)
