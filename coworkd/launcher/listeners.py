"""The sockets on which a session finds the proxies: two ports of its own loopback and two unix sockets in its /tmp.

The launcher makes them and keeps them for as long as the session is open; whoever serves them has copies, and may be started anew.

Rules
- The ports are made in the session's network namespace, where nothing runs yet: nobody can have taken them.
- A unix socket is made outside, below a directory only root can enter, and is bound into the tree by the builder. It is the session's
  uid's alone (0600), on a read-only mount: its mode cannot be changed, and it can be neither removed nor renamed.
- Its name outside goes as soon as the tree stands or has failed: the mount keeps what it names. What a launcher that was killed in
  between left is removed by the next one.
Sources: unix(7), network_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import socket

from coworkd.model.launch import HTTP_PROXY_PORT, SOCKS_PROXY_PORT, OpenSession, TreeFileBind
from coworkd.system.namespaces import NetworkVisits

_PORTS = (HTTP_PROXY_PORT, SOCKS_PROXY_PORT)
_KINDS = (b"http", b"socks")
_BACKLOG = 1024


def make_socket(visits: NetworkVisits, network_namespace: int, *, ipv6: bool) -> socket.socket:
    """A TCP socket of that namespace, non-blocking, neither bound nor connected. Raises `OSError`."""
    with visits.visit(network_namespace):
        return socket.socket(
            socket.AF_INET6 if ipv6 else socket.AF_INET,
            socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        )


class ListenerPlace:
    """The directory in which unix sockets have their names while they are made. One launcher's own."""

    def __init__(self, base: bytes, visits: NetworkVisits) -> None:
        """Make it below `base`, an absolute path without symbolic links; remove what is left in it."""
        self.visits = visits
        self.path = os.path.join(base, b"listeners")
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        self.directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchmod(self.directory, 0o700)
        for name in os.listdir(self.directory):
            os.unlink(name, dir_fd=self.directory)
        self._made = 0

    def next_name(self) -> bytes:
        self._made += 1
        return b"%d" % self._made

    def close(self) -> None:
        """May be called again."""
        if self.directory < 0:
            return
        os.close(self.directory)
        self.directory = -1
        with contextlib.suppress(OSError):  # a name that could not be removed is the next launcher's to remove
            os.rmdir(self.path)


class Listeners:
    """The listeners of one session that is being made. Owns them until `take` or `close`."""

    def __init__(self, place: ListenerPlace, request: OpenSession) -> None:
        """Make the unix ones. Raises `OSError`, and nothing stays."""
        self._place = place
        self._names: list[bytes] = []
        self._sockets: list[socket.socket] = []
        entries = []
        try:
            for kind in _KINDS:
                name = self._make_unix(request)
                seen = b"/tmp/claude-%s-%s.sock" % (kind, request.session.encode())
                entries.append(TreeFileBind(source=os.path.join(place.path, name), path=seen, make=True))
        except OSError:
            self.close()
            raise
        self.entries = tuple(entries)
        """To be made last in the session's tree."""

    def open_ports(self, network_namespace: int) -> None:
        """Make those of the session's loopback. Raises `OSError`; what was made stays until `close`."""
        for port in _PORTS:
            listener = make_socket(self._place.visits, network_namespace, ipv6=False)
            self._sockets.append(listener)
            listener.bind(("127.0.0.1", port))
            listener.listen(_BACKLOG)

    def take(self) -> tuple[int, ...]:
        """All of them, the caller's from now on; their names outside are gone."""
        self._hide()
        taken = tuple(each.detach() for each in self._sockets)
        self._sockets.clear()
        return taken

    def close(self) -> None:
        """Nothing stays of what was not taken."""
        self._hide()
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def _make_unix(self, request: OpenSession) -> bytes:
        name = self._place.next_name()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._sockets.append(listener)
        old = os.umask(0o177)
        try:
            # By way of the descriptor: an address has room for 108 bytes, and the directory may lie deep.
            listener.bind(b"/proc/self/fd/%d/%s" % (self._place.directory, name))
        finally:
            os.umask(old)
        self._names.append(name)
        os.chown(name, request.uid, request.gid, dir_fd=self._place.directory, follow_symlinks=False)
        listener.listen(_BACKLOG)
        return name

    def _hide(self) -> None:
        while self._names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._names.pop(), dir_fd=self._place.directory)
