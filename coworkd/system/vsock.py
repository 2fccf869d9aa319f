"""vsock sockets, as the guest uses them: listen for the host, or dial it.

Thin: create, bind, raise `OSError` (`EADDRINUSE`, `ENODEV` where there is no vsock device). Sockets are non-blocking and
close-on-exec and belong to the caller. Source: vsock(7).
"""

from __future__ import annotations

import errno
import socket

HOST_CID = 2
"""VMADDR_CID_HOST: the only peer a guest may believe."""
ANY_CID = 0xFFFF_FFFF
BACKLOG = 1024
"""A guest answers connections above the backlog with a reset."""


def open_vsock_socket() -> socket.socket:
    """An unbound stream socket. Raises `OSError` (`EAFNOSUPPORT`) where this kernel or Python has none."""
    family: int | None = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no vsock sockets")
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    opened.setblocking(False)
    return opened


def open_vsock_listener(port: int) -> socket.socket:
    """A socket that listens on `port` of every CID this guest has. Who connects is the caller's to check."""
    listener = open_vsock_socket()
    try:
        listener.bind((ANY_CID, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
