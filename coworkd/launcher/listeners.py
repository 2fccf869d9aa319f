"""The sockets on which a session finds the proxies: two ports of its own loopback and two unix sockets in its /tmp.

The launcher makes them and keeps them for as long as the session is open; whoever serves them has copies, and may be started anew.

Rules
- The ports are made in the session's network namespace, where nothing runs yet: nobody can have taken them.
- A unix socket gets its name from the builder, on the tree's own tmpfs, below a directory only root can enter, and is bound into /tmp
  from there (`tree.place`): so it has no name in the guest, and nothing of it is left after a crash. It is the session's uid's alone
  (0600), on a read-only mount: its mode cannot be changed, and it can be neither removed nor renamed.
Sources: unix(7), network_namespaces(7).
"""

from __future__ import annotations

import socket

from coworkd.launcher.tree import TreeSocket
from coworkd.model.launch import HTTP_PROXY_PORT, SOCKS_PROXY_PORT, OpenSession
from coworkd.system.namespaces import NetworkVisits

_PORTS = (HTTP_PROXY_PORT, SOCKS_PROXY_PORT)
_KINDS = (b"http", b"socks")
_BACKLOG = 1024
_NON_BLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def make_socket(visits: NetworkVisits, network_namespace: int, *, ipv6: bool) -> socket.socket:
    """A TCP socket of that namespace, non-blocking, neither bound nor connected. Raises `OSError`."""
    with visits.visit(network_namespace):
        return socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, _NON_BLOCKING)


class Listeners:
    """The listeners of one session that is being made. Owns them until `take` or `close`."""

    def __init__(self, visits: NetworkVisits, request: OpenSession) -> None:
        """Make the unix ones. Raises `OSError`, and nothing stays."""
        self._visits = visits
        self._sockets: list[socket.socket] = []
        try:
            for _ in _KINDS:
                self._sockets.append(socket.socket(socket.AF_UNIX, _NON_BLOCKING))
        except OSError:
            self.close()
            raise
        name = request.session.encode()
        self.to_place = tuple(
            TreeSocket(
                fd=made.fileno(),
                path=b"/tmp/claude-%s-%s.sock" % (kind, name),
                uid=request.uid,
                gid=request.gid,
                backlog=_BACKLOG,
            )
            for kind, made in zip(_KINDS, self._sockets, strict=True)
        )
        """For the builder: sockets that have no name yet."""

    def open_ports(self, network_namespace: int) -> None:
        """Make those of the session's loopback. Raises `OSError`; what was made stays until `close`."""
        for port in _PORTS:
            listener = make_socket(self._visits, network_namespace, ipv6=False)
            self._sockets.append(listener)
            listener.bind(("127.0.0.1", port))
            listener.listen(_BACKLOG)

    def take(self) -> tuple[int, ...]:
        """All of them, the caller's from now on."""
        taken = tuple(each.detach() for each in self._sockets)
        self._sockets.clear()
        return taken

    def close(self) -> None:
        """Nothing stays of what was not taken."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()
