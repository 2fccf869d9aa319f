"""Endpoints that are listened on: a unix socket or a vsock port, as acceptors.

Rules
- The unix socket is 0600 from its first moment (the mode of the socket's inode is set before bind, unix(7)), and replaces
  a file at its path only if that is a socket on which nobody listens; anything else is refused and stays.
- What is accepted there takes one gathering send of a writer whole, if the kernel allows as much (`wmem_max`, socket(7)): the usual
  208 KiB would take it in three, with a turn of the loop and a wakeup of the peer for each.
- A vsock peer is accepted only if its CID is 2, the host's: others are closed before a byte is read.
- One that this process was handed (`descriptor`, over an exec) listens already, with who waits in it.
- `close` stops listening and removes the unix socket if it is still the one that was made.

Not here: what is done with what was accepted, and retries. Sources: unix(7), socket(7), vsock(7).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from typing import Protocol

import trio

from coworkd.model.errors import AlreadyExists, Unavailable
from coworkd.rpc.transport import SocketTransport, Transport
from coworkd.rpc.turns import GATHER_BYTES
from coworkd.system.vsock import BACKLOG, HOST_CID, open_vsock_listener
from coworkd.wire.endpoint import UnixEndpoint, VsockPort

_PEER_CREDENTIALS = struct.Struct("3i")


class RefusedPeer(Exception):
    """Somebody connected who may not. `peer` says who; the connection is closed."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"{peer}: {reason}")
        self.peer = peer
        self.reason = reason


class Acceptor(Protocol):
    """Something that is listened on. `endpoint` is its URI, `kind` the first word of its links' names."""

    @property
    def endpoint(self) -> str: ...

    @property
    def kind(self) -> str: ...

    async def accept(self) -> tuple[Transport, str]:
        """Return the next connection and who its peer is. Raises `OSError`, or `RefusedPeer` for one that may not."""

    def fileno(self) -> int:
        """What is listened on."""

    def close(self) -> None:
        """Stop listening; idempotent."""


class UnixListener:
    """A unix stream socket that is listened on, without a loop; see the rules above."""

    def __init__(self, endpoint: UnixEndpoint, descriptor: int | None = None) -> None:
        """Listen. Raises `AlreadyExists` if somebody does already or the path is no socket, `Unavailable` otherwise."""
        self._path = endpoint.path
        if descriptor is None:
            _remove_stale(self._path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        else:
            self.socket = socket.socket(fileno=descriptor)
        try:
            if descriptor is None:
                os.fchmod(self.socket.fileno(), 0o600)
                self.socket.bind(self._path)
                self.socket.listen(BACKLOG)
            made = os.lstat(self._path)
        except OSError as error:
            self.socket.close()
            raise Unavailable(
                f"cannot listen on {self._path}: {error.strerror}; does its directory exist, and may coworkd write there?",
                path=self._path,
                errno=error.errno,
            ) from error
        self._made = (made.st_dev, made.st_ino)

    def remove(self) -> None:
        """Take the name away, if it is still the one that was made."""
        with suppress(FileNotFoundError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._made:
                os.unlink(self._path)


class UnixAcceptor:
    """A unix stream socket, for trio."""

    kind = "unix"

    def __init__(self, endpoint: UnixEndpoint, descriptor: int | None = None) -> None:
        """Listen. Raises as `UnixListener`."""
        self.endpoint = str(endpoint)
        self._listening = UnixListener(endpoint, descriptor)
        self._listener = trio.socket.from_stdlib_socket(self._listening.socket)

    async def accept(self) -> tuple[Transport, str]:
        accepted, _ = await self._listener.accept()
        raw = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid, uid, _ = _PEER_CREDENTIALS.unpack(raw)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, GATHER_BYTES)
        return SocketTransport(accepted), f"pid {pid} uid {uid}"

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.close()
        self._listening.remove()


class VsockAcceptor:
    """A vsock port, for the host alone."""

    kind = "vsock"

    def __init__(self, endpoint: VsockPort, listener: trio.socket.SocketType) -> None:
        """`listener` listens already and belongs to this from now on."""
        self.endpoint = str(endpoint)
        self._listener = listener

    @classmethod
    def open(cls, endpoint: VsockPort, descriptor: int | None = None) -> VsockAcceptor:
        """Listen. Raises `Unavailable` where there is no vsock device or the port is taken."""
        if descriptor is not None:
            return cls(endpoint, trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        return cls(endpoint, trio.socket.from_stdlib_socket(listen_vsock(endpoint)))

    async def accept(self) -> tuple[Transport, str]:
        accepted, (cid, port) = await self._listener.accept()
        peer = f"cid {cid} port {port}"
        if not is_host((cid, port)):
            accepted.close()
            raise RefusedPeer(peer, f"only the host, CID {HOST_CID}, may connect")
        return SocketTransport(accepted), peer

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


def listen_vsock(endpoint: VsockPort) -> socket.socket:
    """Raises `Unavailable` where there is no vsock device or the port is taken. Who comes is the caller's to judge, by `is_host`."""
    try:
        return open_vsock_listener(endpoint.port)
    except OSError as error:
        why = (
            "another program of this guest has the port"
            if error.errno == errno.EADDRINUSE
            else "has the machine a vsock device?"
        )
        raise Unavailable(f"cannot listen on {endpoint}: {error.strerror}; {why}", errno=error.errno) from error


def is_host(address: tuple[int, int]) -> bool:
    """Whether the peer at this vsock address is the host."""
    return address[0] == HOST_CID


def _remove_stale(path: str) -> None:
    """Make room for a socket at `path`, if what is there is a socket without a listener."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise AlreadyExists(f"{path} is there and is no socket; it was left alone, choose another path", path=path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
                return
            if error.errno != errno.EAGAIN:  # a full backlog, which somebody has
                raise Unavailable(
                    f"cannot tell whether {path} is in use: {error.strerror}", path=path, errno=error.errno
                ) from error
    raise AlreadyExists(f"another coworkd listens on {path}; stop it or choose another path", path=path)
