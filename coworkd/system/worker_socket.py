"""A worker's end of its conversation with coworkd: one request at a time, over a SEQPACKET socket, with descriptors.

Rules
- Words are the caller's: a decoder goes in, structs come out. A message over 64 KiB travels in a memfd (`packet`).
- Whoever receives a descriptor owns it. The peer's end of file is the end of the work, and so is a peer that breaks the words.
- It blocks: a worker is one thread that does one thing after the other.

Source: unix(7).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from coworkd.system import packet

_Request = TypeVar("_Request")
_encoder = msgspec.msgpack.Encoder()


class WorkerSocket(Generic[_Request]):
    """The socket, which stays the caller's to close."""

    def __init__(self, connection: socket.socket, decoder: msgspec.msgpack.Decoder[_Request]) -> None:
        self._socket = connection
        self._socket.setblocking(True)
        self._decoder = decoder

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> tuple[_Request, list[int]] | None:
        """The next request with its descriptors, the caller's now; None at the end, whichever way it came."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
            message, fds = packet.unpack(data, ancillary, flags)
        except (OSError, packet.BrokenPacket):
            return None
        try:
            return self._decoder.decode(message), fds
        except packet.UNDECODABLE:  # an empty message is the end of file
            for fd in fds:
                os.close(fd)
            return None

    def send(self, message: Struct, fds: Iterable[int] = ()) -> None:
        """Send, waiting for room; `fds` stay the caller's. Raises `OSError`: EPIPE or ECONNRESET where nobody listens any more."""
        data, ancillary, memfd = packet.pack(_encoder.encode(message), fds)
        try:
            self._socket.sendmsg(data, ancillary)
        finally:
            if memfd >= 0:
                os.close(memfd)
