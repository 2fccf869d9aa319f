"""The byte stream under a link: a socket, or a virtio-serial port.

Both read with a bound and write lists of buffers by gathering system calls, so that a payload goes from where it lies
to the kernel without a copy. Whoever is handed a transport closes it.

Not here: framing, who the peer is. Sources: sendmsg(2), writev(2), IOV_MAX in limits.h(0p).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

Buffer = bytes | memoryview

MAX_BUFFERS = 512
"""At most as many buffers go into one call; the kernel's IOV_MAX is 1,024."""


class Transport(Protocol):
    """One ordered, reliable byte stream. Errors are `OSError`, `trio.BrokenResourceError`, `trio.ClosedResourceError`."""

    async def receive(self, limit_bytes: int, /) -> bytes:
        """Return what has come, at most `limit_bytes`; empty at the end of the stream."""

    async def send(self, buffers: Sequence[Buffer], /) -> None:
        """Send all of `buffers` in order. Cancelled half-way, an unknown part was sent: close the stream then."""

    def send_nowait(self, frame: bytes, /) -> int:
        """Send what the peer has room for at this moment, perhaps nothing; only while no `send` is under way."""

    def close(self) -> None:
        """Close at once; idempotent. What was not yet taken by the peer may still be delivered."""


class SocketTransport:
    """A connected stream socket (unix, vsock). Owns it."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = connected

    async def receive(self, limit_bytes: int, /) -> bytes:
        return await _read(self._socket.fileno, limit_bytes)

    async def send(self, buffers: Sequence[Buffer], /) -> None:
        rest = list(buffers)
        while rest:
            sent = await self._socket.sendmsg(rest[:MAX_BUFFERS])
            rest = drop_sent(rest, sent)

    def send_nowait(self, frame: bytes, /) -> int:
        try:
            return os.write(self._socket.fileno(), frame)
        except OSError:  # full or broken: `send` waits, and says which
            return 0

    def close(self) -> None:
        self._socket.close()


class PortTransport:
    """A character device: a virtio-serial port, or a pty in tests. Owns `fd`, which it makes non-blocking."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def receive(self, limit_bytes: int, /) -> bytes:
        return await _read(lambda: self._fd, limit_bytes)

    async def send(self, buffers: Sequence[Buffer], /) -> None:
        rest = list(buffers)
        while rest:
            await trio.lowlevel.wait_writable(self._fd)
            try:
                sent = os.writev(self._fd, rest[:MAX_BUFFERS])
            except BlockingIOError:
                continue
            rest = drop_sent(rest, sent)

    def send_nowait(self, frame: bytes, /) -> int:
        return 0

    def close(self) -> None:
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1


async def _read(fileno: Callable[[], int], limit_bytes: int) -> bytes:
    """What has come on a non-blocking descriptor. To try before it is waited for would be in vain: a host waits for its answer.

    The descriptor is asked for again behind the wait: whoever closed it in the same turn of the loop may have given its number to another.
    """
    while True:
        await trio.lowlevel.wait_readable(fileno())
        if (fd := fileno()) < 0:
            raise trio.ClosedResourceError("closed while something came")
        try:
            return os.read(fd, limit_bytes)
        except BlockingIOError:
            continue


def drop_sent(buffers: Sequence[Buffer], sent: int) -> list[Buffer]:
    """What is left of `buffers` after their first `sent` bytes; nothing is copied."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            rest = list(buffers[index:])
            if sent:
                rest[0] = memoryview(buffer)[sent:]
            return rest
        sent -= len(buffer)
    return []
