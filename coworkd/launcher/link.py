"""The launcher's end of its one conversation: a SEQPACKET socket to the supervisor.

Packets that do not fit now wait in order; they are bounded by what there is to tell (one answer a request, three notices a process). A
supervisor that breaks the words is cut off, and its processes live on.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence

import msgspec

from coworkd.model.launch import Reply, Request
from coworkd.system.supervised import SupervisorSocket

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


class SupervisorLink(SupervisorSocket[Request]):
    """One supervisor's connection. Descriptors given to `send` stay the caller's."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, _decoder)
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()

    @property
    def behind(self) -> bool:
        """Whether packets wait for the socket to take them."""
        return bool(self._waiting)

    def send(self, reply: Reply, fds: Sequence[int] = ()) -> None:
        """Send, or wait behind what waits; a waiting packet holds copies of its descriptors. Raises `OSError` where none are to be had."""
        message = _encoder.encode(reply)
        if self._waiting or not self.send_nowait(message, tuple(fds)):
            self._waiting.append((message, _copy(fds)))

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._waiting and self.send_nowait(*self._waiting[0]):
            for fd in self._waiting.popleft()[1]:
                os.close(fd)

    def close(self) -> None:
        """Let go of the socket; what waited is told again to the next supervisor, by `Adopted`."""
        super().close()
        for _, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()


def _copy(fds: Sequence[int]) -> tuple[int, ...]:
    """All of them, or `OSError` and none."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError:
        for fd in copies:
            os.close(fd)
        raise
    return tuple(copies)
