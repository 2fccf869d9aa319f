"""The host's end of one connection: a unix socket, what waits for it, and what is known of its readiness.

Rules
- The socket is not blocking and is watched once, edge-triggered: `readable` stays true until a read says otherwise, and writing is tried
  until it does not go. So a host that neither reads nor writes costs nothing.
- What the guest sent goes to the socket straight from the guest's memory; only what does not fit is copied, never more than the
  connection's room.
- Bytes for the guest are read straight into its buffers.
- Order of an end: what waits is written first, then the socket is shut down or closed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from coworkd.wire.hybrid import compose_ok
from host_stub.vsock import packet
from host_stub.vsock.connections import Connection, State

_IOV_LIMIT = 512


class HostEnd:
    """A connection and its socket, which it owns; `appetite` is how many buffers a read is given."""

    __slots__ = (
        "_gone",
        "_leaving",
        "_shut",
        "_waiting",
        "appetite",
        "asked_by_host",
        "connection",
        "hung_up",
        "listed",
        "readable",
        "socket",
    )

    def __init__(self, connection: Connection, host: socket.socket) -> None:
        self.connection, self.socket = connection, host
        self.asked_by_host = connection.state is State.DIALLING
        self.readable = self.hung_up = self.listed = False
        self.appetite = 1
        self._waiting = bytearray()
        self._gone = self._leaving = self._shut = False

    @property
    def finished(self) -> bool:
        """Whether the guest is done and all it sent has been written, or nobody is there to read it."""
        return self._leaving and not self._waiting

    def greet(self) -> None:
        """Tell a client that the guest took it: the first bytes of its socket, which always have room."""
        self._write([memoryview(compose_ok(self.connection.key.host_port))])

    def write(self, views: Sequence[memoryview], size: int) -> None:
        """Pass `size` bytes on from the guest's memory, or keep a copy of what does not fit."""
        written = 0
        if not self._waiting and not self._gone and size:
            written = self._write(views[:_IOV_LIMIT])
            self.connection.passed_on(written)
        if self._gone:
            self.connection.passed_on(size - written)
        elif written < size:
            for view in packet.split(views, written)[1]:
                self._waiting += view

    def flush(self) -> None:
        """Write what waits, as far as it goes."""
        while self._waiting:
            with memoryview(self._waiting) as waiting:
                written = self._write([waiting])
            if self._gone:
                self._drop_waiting()
            elif not written:
                break
            self.connection.passed_on(written)
            del self._waiting[:written]
        self._end_writing()

    def read_into(self, views: Sequence[memoryview]) -> int | None:
        """Read from the host; 0 at its end, None if there is nothing now."""
        try:
            return os.readv(self.socket.fileno(), views)
        except BlockingIOError:
            self.readable = False
            return None
        except OSError:
            self.hung_up = True
            return 0

    def heed_shutdown(self) -> None:
        """The guest has half-closed: it sends no more, once what waits is written, or it receives no more."""
        if self.connection.guest_done & packet.RECEIVES_NO_MORE:
            self._shutdown(socket.SHUT_RD)
        self._end_writing()

    def leave(self) -> None:
        """The guest is done with this connection; see `finished`."""
        self._leaving = True

    def close(self) -> None:
        """Close the socket, whatever waits."""
        self._waiting.clear()
        self.socket.close()

    def _write(self, views: Sequence[memoryview]) -> int:
        try:
            return os.writev(self.socket.fileno(), views)
        except BlockingIOError:
            return 0
        except OSError:
            # Nobody reads any more: what comes is thrown away, and the guest is told.
            self._gone = True
            self.connection.finish(packet.RECEIVES_NO_MORE)
            return 0

    def _drop_waiting(self) -> None:
        self.connection.passed_on(len(self._waiting))
        self._waiting.clear()

    def _end_writing(self) -> None:
        if self.connection.guest_done & packet.SENDS_NO_MORE and not self._waiting and not self._shut:
            self._shut = True
            self._shutdown(socket.SHUT_WR)

    def _shutdown(self, how: int) -> None:
        try:
            self.socket.shutdown(how)
        except OSError:
            return
