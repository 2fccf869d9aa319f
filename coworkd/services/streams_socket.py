"""A connected stream socket as the end of a stream. Sources: shutdown(2), socket(7) SO_LINGER, tcp(7) TCP_NODELAY."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

import trio

RESET = struct.pack("ii", 1, 0)
"""struct linger {1, 0}: close(2) then sends a reset, not an end."""


class SocketEnd:
    """Implements `model.stream.StreamEnd`. Owns the socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    def read_nowait(self, limit_bytes: int, /) -> bytes | None:
        try:
            return self._socket.recv(limit_bytes)
        except BlockingIOError:
            return None

    async def wait_readable(self) -> None:
        self._check_open()
        await trio.lowlevel.wait_readable(self._socket)

    def write_nowait(self, data: memoryview, /) -> int:
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        self._check_open()
        await trio.lowlevel.wait_writable(self._socket)

    def close_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, abort: bool = False) -> None:
        if self._socket.fileno() < 0:
            return
        if abort:
            set_reset(self._socket)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this end was closed here")


def set_reset(connected: socket.socket) -> None:
    """Let the coming close reset the connection where its kind can; a unix socket has no reset and just ends."""
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def connect(fresh: socket.socket, address: object) -> None:
    """Connect a non-blocking socket. Raises `OSError`; cancelled, the socket is the caller's to close."""
    number = fresh.connect_ex(address)  # type: ignore[arg-type]  # typeshed spells out address kinds
    if number == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(fresh)
        number = fresh.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    else:
        await trio.lowlevel.checkpoint()
    if number:
        raise OSError(number, os.strerror(number))
