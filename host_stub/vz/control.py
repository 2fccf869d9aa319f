"""The control socket's end in the process that owns VZ's objects: blocking, one thread reads, the main one sends.

Rules
- A back end that has gone is no error to who sends: the reader sees its end, and that ends the machine.
- Whoever receives a descriptor owns it; those that are sent stay the sender's.
- Sending waits where the back end does not read. The guest runs on meanwhile, in VZ's own service.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from typing import Any

from host_stub.vz import words

_READ_BYTES = 64 << 10
_ANCILLARY_BYTES = socket.CMSG_SPACE(words.FD_LIMIT * array.array("i").itemsize)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""macOS has none: descriptors are closed on exec a moment later there."""


def receive_some(connection: socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    """One read with its descriptors, the caller's now. Raises `OSError`, `BrokenWords`."""
    data, ancillary, told, _ = connection.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, _FLAGS | flags)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    if told & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise words.BrokenWords("more descriptors came than any message has")
    return data, list(fds)


def rights(fds: tuple[int, ...]) -> list[tuple[int, int, Any]]:
    """What `sendmsg` takes as ancillary data."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


class ControlSocket:
    """Owns `connection`."""

    def __init__(self, connection: socket.socket, kinds: Any) -> None:
        self._connection = connection
        self._connection.setblocking(True)
        self._frames = words.Frames(kinds)
        self.broken = False
        """The peer is known to have broken the words."""

    def receive(self) -> tuple[Any, list[int]] | None:
        """The next message; None at the end. Raises `BrokenWords`."""
        while (found := self._frames.next()) is None:
            try:
                data, fds = receive_some(self._connection)
            except OSError:
                data, fds = b"", []
            if not data:
                self._frames.close()
                return None
            self._frames.feed(data, fds)
        return found

    def send(self, message: words.Message, fds: tuple[int, ...] = ()) -> None:
        data = memoryview(words.encode(message))
        with contextlib.suppress(OSError):
            sent = self._connection.sendmsg([data], rights(fds))
            if sent < len(data):
                self._connection.sendall(data[sent:])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
