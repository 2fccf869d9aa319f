"""The ends of a bridge as sockets: listened on, and connected to.

Rules
- A session's end is made in its network namespace by the launcher, so it is the session's own loopback and nobody else's.
- A unix path is looked at before it is used (`bridges_paths`); the socket that is listened on has mode 0600, and replaces one on which
  nobody listens, nothing else.
- Over vsock only the host, CID 2, may connect.
- A name is looked up for each connection, and its addresses are tried in turn.

Errors are `OSError` or a `CoworkError`. Sources: unix(7), vsock(7), ipv6(7) IPV6_V6ONLY.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

import trio

from coworkd.model.bridge import BridgeEnd, SessionEnd, TcpEnd, UnixEnd, VsockEnd
from coworkd.model.errors import AlreadyExists
from coworkd.model.ports import LauncherPort, SessionDirectory
from coworkd.services.bridges_paths import check_path
from coworkd.services.forwards import connect_port
from coworkd.services.streams_socket import connect
from coworkd.system.socket_network import network_cookie
from coworkd.system.vsock import HOST_CID, open_vsock_listener, open_vsock_socket

BACKLOG = 128
SOCKET_MODE = 0o600


class Listener:
    """A listening socket. Owns it; a unix socket's path goes with it if it is still the one that was made."""

    def __init__(self, listening: socket.socket, end: BridgeEnd) -> None:
        listening.setblocking(False)
        self._socket = listening
        self._end = end
        self._made = _inode(end.path) if isinstance(end, UnixEnd) else None

    async def accept(self) -> socket.socket:
        """The next connection of one who may; the caller's to close. Raises `OSError`."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                accepted, peer = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            if isinstance(self._end, VsockEnd) and peer[0] != HOST_CID:
                accepted.close()
                continue
            return accepted

    @property
    def network(self) -> int:
        """The namespace it listens in (`network_cookie`)."""
        return network_cookie(self._socket)

    @property
    def address(self) -> object:
        """What it is bound to."""
        return self._socket.getsockname()

    def close(self) -> None:
        """Idempotent."""
        if self._socket.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        if isinstance(self._end, UnixEnd):
            with suppress(OSError):
                if _inode(self._end.path) == self._made:
                    os.unlink(self._end.path)


class Ends:
    """Makes them. `open_vsock` and `listen_vsock` are for tests: there is no vsock without a machine around us."""

    def __init__(
        self,
        *,
        sessions: SessionDirectory,
        launcher: LauncherPort,
        own_sockets: tuple[str, ...],
        open_vsock: Callable[[], socket.socket] = open_vsock_socket,
        listen_vsock: Callable[[int], socket.socket] = open_vsock_listener,
    ) -> None:
        self._sessions = sessions
        self._launcher = launcher
        self._own_sockets = own_sockets
        self._open_vsock = open_vsock
        self._listen_vsock = listen_vsock

    async def listen(self, end: BridgeEnd) -> Listener:
        """Listen on `end`."""
        if isinstance(end, VsockEnd):
            return Listener(self._listen_vsock(end.port), end)
        if isinstance(end, SessionEnd):
            return _listening(await self._session_socket(end.session), ("127.0.0.1", end.port), end)
        if isinstance(end, UnixEnd):
            await self._check_path(end.path)
            return await trio.to_thread.run_sync(_listen_unix, end)
        return _listen_tcp(end)

    async def connect(self, end: BridgeEnd) -> socket.socket:
        """Connect to `end`; the caller closes the socket."""
        if isinstance(end, SessionEnd):
            session = (await self._sessions.open(end.session)).name
            return await connect_port(self._launcher, session, end.port)
        if isinstance(end, UnixEnd):
            await self._check_path(end.path)
            return await _connected(socket.socket(socket.AF_UNIX), end.path)
        if isinstance(end, VsockEnd):
            return await _connected(self._open_vsock(), (end.cid, end.port))
        return await _connect_tcp(end)

    async def network_of(self, session: str) -> int:
        """The network namespace of a session as it is now. Raises what `listen` raises where there is none."""
        with await self._session_socket(session) as made:
            return network_cookie(made)

    async def _session_socket(self, session: str) -> socket.socket:
        name = (await self._sessions.open(session)).name
        return socket.socket(fileno=await self._launcher.make_socket(name))

    async def _check_path(self, path: str) -> None:
        # A share that hangs holds a thread, and nobody else.
        await trio.to_thread.run_sync(_check, path, self._own_sockets, abandon_on_cancel=True)


def _check(path: str, own: tuple[str, ...]) -> None:
    check_path(path, own=own)


def _listening(fresh: socket.socket, address: object, end: BridgeEnd) -> Listener:
    try:
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.bind(address)  # type: ignore[arg-type]  # typeshed spells out address kinds
        fresh.listen(BACKLOG)
        return Listener(fresh, end)
    except BaseException:
        fresh.close()
        raise


def _listen_tcp(end: TcpEnd) -> Listener:
    if ":" not in end.host:
        return _listening(socket.socket(socket.AF_INET), (end.host, end.port), end)
    fresh = socket.socket(socket.AF_INET6)
    fresh.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return _listening(fresh, (end.host, end.port), end)


def _listen_unix(end: UnixEnd) -> Listener:
    _remove_stale(end.path)
    fresh = socket.socket(socket.AF_UNIX)
    os.fchmod(fresh.fileno(), SOCKET_MODE)  # bind(2) gives the file the mode of the socket's inode
    return _listening(fresh, end.path, end)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise AlreadyExists(f"{path} is there and is no socket; it was left alone, choose another path", path=path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        number = probe.connect_ex(path)
    if number == errno.ECONNREFUSED:
        os.unlink(path)
    elif number != errno.ENOENT:
        raise AlreadyExists(f"something listens on {path} already; choose another path", path=path)


async def _connect_tcp(end: TcpEnd) -> socket.socket:
    found = await trio.socket.getaddrinfo(end.host, end.port, type=socket.SOCK_STREAM)
    refusal: OSError = OSError(errno.ENOENT, f"{end.host} has no address")
    for family, kind, protocol, _, address in found:
        try:
            return await _connected(socket.socket(family, kind, protocol), address)
        except OSError as error:
            refusal = error
    raise refusal


async def _connected(fresh: socket.socket, address: object) -> socket.socket:
    try:
        fresh.setblocking(False)
        if fresh.family in (socket.AF_INET, socket.AF_INET6):
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await connect(fresh, address)
    except BaseException:
        fresh.close()
        raise
    return fresh


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
