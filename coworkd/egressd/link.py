"""The end of coworkd-egress of its one conversation: a SEQPACKET socket to the supervisor.

Answers that do not fit now wait in order, as many as `_ANSWER_LIMIT`: a supervisor that asks and never reads is cut off, as is one that
breaks the words. Events are told only while nothing waits, so they wait where they are kept. What a session does goes on meanwhile.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Sequence

import msgspec

from coworkd.model.egress import Answer, EgressEvent, Request, Told
from coworkd.system import packet

_ANSWER_LIMIT = 1024
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Request)


def peer_uid(connection: socket.socket) -> int:
    """The uid that connected (SO_PEERCRED, unix(7))."""
    record = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", record)[1])


class SupervisorLink:
    """One supervisor's connection; owns the socket. `closed` says that the conversation has ended; the owner then calls `close`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def behind(self) -> bool:
        """Whether answers wait for the socket to take them."""
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

    def answer(self, answer: Answer) -> None:
        """Send, or wait behind what waits."""
        message = _encoder.encode(answer)
        if self._waiting or not self._try(message):
            self._waiting.append(message)
            self.closed = self.closed or len(self._waiting) > _ANSWER_LIMIT

    def tell(self, events: Sequence[EgressEvent]) -> bool:
        """Send events; False if the socket takes none now, nothing being kept here."""
        return not self._waiting and self._try(_encoder.encode(Told(events=tuple(events))))

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._waiting and self._try(self._waiting[0]):
            self._waiting.popleft()

    def close(self) -> None:
        """Let go of the socket and of what waits."""
        self.closed = True
        self._socket.close()
        self._waiting.clear()

    def _try(self, message: bytes) -> bool:
        """False if the socket is full; a peer that is gone takes everything, for its successor is told again."""
        try:
            data, ancillary, memfd = packet.pack(message)
        except OSError:  # no descriptor for a long message's memfd
            return False
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
