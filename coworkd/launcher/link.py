"""The launcher's end of its one conversation: a SEQPACKET socket to the supervisor.

Packets that do not fit now wait in order; they are bounded by what there is to tell (one answer a request, three notices a process). A
supervisor that breaks the words is cut off, and its processes live on.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Sequence

import msgspec

from coworkd.model.launch import Reply, Request
from coworkd.system import packet

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Request)


def peer_uid(connection: socket.socket) -> int:
    """The uid that connected (SO_PEERCRED, unix(7))."""
    record = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", record)[1])


class SupervisorLink:
    """One supervisor's connection; owns the socket. Descriptors given to `send` stay the caller's.

    `closed` says that the conversation has ended; the owner then calls `close`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def behind(self) -> bool:
        """Whether packets wait for the socket to take them."""
        return bool(self._waiting)

    def receive(self) -> tuple[Request, list[int]] | None:
        """The next request with its descriptors (the caller's now); None when there is none or the peer is gone."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
            message, fds = packet.unpack(data, ancillary, flags)
        except BlockingIOError:
            return None
        except (OSError, packet.BrokenPacket):
            self.closed = True
            return None
        try:
            return _decoder.decode(message), fds
        except msgspec.MsgspecError:  # an empty message is the end of the connection
            for fd in fds:
                os.close(fd)
            self.closed = True
            return None

    def send(self, reply: Reply, fds: Sequence[int] = ()) -> None:
        """Send, or wait behind what waits; a waiting packet holds copies of its descriptors."""
        message = _encoder.encode(reply)
        if self._waiting or not self._try(message, fds):
            self._waiting.append((message, [os.dup(fd) for fd in fds]))

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._waiting and self._try(*self._waiting[0]):
            for fd in self._waiting.popleft()[1]:
                os.close(fd)

    def close(self) -> None:
        """Let go of the socket; what waited is told again to the next supervisor, by `Adopted`."""
        self.closed = True
        self._socket.close()
        for _, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()

    def _try(self, message: bytes, fds: Sequence[int]) -> bool:
        """False if the socket is full; a peer that is gone takes everything, for its successor is told again."""
        data, ancillary, memfd = packet.pack(message, fds)
        try:
            self._socket.sendmsg(data, ancillary)
        except BlockingIOError:
            return False
        except OSError:
            self.closed = True
        finally:
            if memfd >= 0:
                os.close(memfd)
        return True
