"""What the programs beside coworkd share: a SEQPACKET socket that only a supervisor may use, one conversation at a time.

`listen_early` makes the socket under a name nobody looks for; whoever may connect sees it once it was renamed. `SupervisorSocket` is the
program's end of a conversation: requests in, with their descriptors; what goes out, and what waits, is the program's own.

Sources: unix(7) (SO_PEERCRED, SCM_RIGHTS).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Generic, TypeVar

import msgspec

from coworkd.system import packet

_BACKLOG = 4
_EARLY = ".new"
PATH_LIMIT_BYTES = 107 - len(_EARLY)
"""Of a socket's path: unix(7) has room for 107 bytes, and its early name is longer."""
_Request = TypeVar("_Request")


def listen_early(path: str) -> tuple[socket.socket, str]:
    """A listener for root alone (0600), and the name it has until it is renamed to `path`."""
    early = path + _EARLY
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(early)
    old = os.umask(0o177)
    try:
        listener.bind(early)
    finally:
        os.umask(old)
    listener.listen(_BACKLOG)
    return listener, early


def peer_uid(connection: socket.socket) -> int:
    """The uid that connected."""
    return _peer(connection)[1]


def listener_pid(path: str) -> int:
    """Who listens at `path`. Never waits. Raises `OSError` where nobody does, or has no room for one more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as asking:
        asking.connect(path)
        return _peer(asking)[0]


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid: of who connected, or of who began to listen."""
    pid, uid, gid = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return pid, uid, gid


class SupervisorSocket(Generic[_Request]):
    """One supervisor's connection; owns the socket. `closed` says that the conversation has ended; the owner then calls `close`.

    A supervisor that breaks the words has ended the conversation. One whose descriptors found no room here (EMFILE) has not: its request
    comes without them, and whoever needs them refuses it.
    """

    def __init__(self, connection: socket.socket, decoder: msgspec.msgpack.Decoder[_Request]) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._decoder = decoder
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> tuple[_Request, list[int]] | None:
        """The next request with its descriptors (the caller's now); None when there is none or the peer is gone."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
            message, fds = packet.unpack(data, ancillary, flags)
        except BlockingIOError:
            return None
        except packet.OutOfDescriptors as short:
            message, fds = short.message, []
        except (OSError, packet.BrokenPacket):
            self.closed = True
            return None
        try:
            return self._decoder.decode(message), fds
        except packet.UNDECODABLE:  # an empty message is the end of the connection
            for fd in fds:
                os.close(fd)
            self.closed = True
            return None

    def close(self) -> None:
        """Let go of the socket."""
        self.closed = True
        self._socket.close()

    def send_nowait(self, message: bytes, fds: tuple[int, ...] = ()) -> bool:
        """False if the socket is full, or a long message finds no descriptor; a peer that is gone takes everything."""
        try:
            data, ancillary, memfd = packet.pack(message, fds)
        except OSError:
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
