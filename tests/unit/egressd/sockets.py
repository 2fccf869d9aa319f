"""Connected sockets for the tests of coworkd-egress: over loopback TCP, where half-closes, resets and full buffers are real."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

from coworkd.egressd.loop import Loop


def open_fds() -> set[str]:
    """This process's descriptors, without the one that looks."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def tcp_pair(*, buffer_bytes: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two ends of one connection, non-blocking; with small buffers if wished."""
    with socket.socket() as listener:
        if buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = socket.socket()
        if buffer_bytes is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    if buffer_bytes is not None:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def turn_until(loop: Loop, condition: Callable[[], object], *, turns: int = 2000) -> None:
    """Turn the loop until it is so. Fails when it is not after that many turns of at most 10 ms."""
    for _ in range(turns):
        if condition():
            return
        loop.turn(0.01)
    raise AssertionError("it never came to that")


def fill(connection: socket.socket, chunk: bytes = bytes(65536)) -> int:
    """Send until no more is taken; how many bytes it was."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += connection.send(chunk)
    return sent


def read_all(connection: socket.socket) -> bytes:
    """What is there now."""
    chunks = []
    with contextlib.suppress(BlockingIOError):
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)
