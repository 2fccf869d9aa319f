"""The machine monitor's connection: bytes and descriptors of its socket → the device, replies back.

Rules: one connection is one life of the device; when it ends, by end of file, a breach or a socket that does not take a reply, `closed`
says why. A turn reads at most `_MESSAGES_A_TURN` messages. Descriptors that come are close-on-exec.
"""

from __future__ import annotations

import array
import os
import socket

from host_stub.vsock.device import Device, Watcher
from host_stub.vsock.messages import FD_LIMIT, FrontEndError, Message, MessageReader

_MESSAGES_A_TURN = 32
_FD_BYTES = array.array("i").itemsize


class FrontEnd:
    """Owns the socket and the device."""

    def __init__(self, connection: socket.socket, cid: int, watcher: Watcher) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.device = Device(cid, watcher)
        self.closed: str | None = None
        """Why it has ended."""
        self._reader = MessageReader()

    def read(self) -> None:
        """Take what is there; see `closed` afterwards."""
        for _ in range(_MESSAGES_A_TURN):
            if self.closed is not None or not self._read_once():
                return

    def close(self) -> None:
        """Close the socket, the device and all descriptors."""
        self.socket.close()
        self._reader.close()
        self.device.close()

    def _read_once(self) -> bool:
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(
                self._reader.wanted, socket.CMSG_SPACE((FD_LIMIT + 1) * _FD_BYTES), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError as error:
            self.closed = f"its socket failed: {error.strerror}"
            return False
        fds = _descriptors(ancillary)
        if not data:
            for fd in fds:
                os.close(fd)
            self.closed = "it left in the midst of a message" if self._reader.in_message else "it left"
            return False
        try:
            if flags & socket.MSG_CTRUNC:
                self._reader.feed(b"", fds)
                raise FrontEndError("more descriptors came than belong to any message")
            message = self._reader.feed(data, fds)
            # A message without payload is whole with its header.
            if message is None and self._reader.wanted == 0:
                message = self._reader.feed(b"")
            if message is not None:
                self._handle(message)
        except FrontEndError as error:
            self.closed = str(error)
        return True

    def _handle(self, message: Message) -> None:
        try:
            reply = self.device.handle(message)
        except FrontEndError as error:
            self.closed = str(error)
            reply = self.device.acknowledge(message, 1)
        if reply is not None:
            try:
                sent = self.socket.send(reply, socket.MSG_NOSIGNAL)
            except OSError:
                sent = 0
            if sent != len(reply):
                self.closed = self.closed or "it does not take replies"


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return list(fds)
