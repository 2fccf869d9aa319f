"""Namespaces: unshare(2), setns(2), visits to a network namespace, and the one interface a new one needs up.

A network namespace starts with `lo` down. setns is per thread, so only single-threaded programs call it. A socket belongs for ever to
the network namespace its maker was in, wherever it is used.
Sources: namespaces(7), netdevice(7).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from coworkd.system import libc

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = "16sh22x"

_RETURNS = 100

_unshare = libc.function("unshare")
_setns = libc.function("setns")


def unshare(flags: int) -> None:
    """Leave the namespaces `flags` names for new ones."""
    libc.check(_unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Join the namespace `fd` refers to; `kind` is the CLONE_NEW* flag it must be of."""
    libc.check(_setns(fd, kind))


def set_loopback_up() -> None:
    """Bring `lo` up in the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack(_IFREQ, b"lo", 0))
        _, flags = struct.unpack(_IFREQ, answer)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | _IFF_UP))


class Stranded(Exception):
    """The way back from a visit is closed: a program that is not where it thinks it is must end. Never an `OSError`."""


class NetworkVisits:
    """Short visits to other network namespaces, from the one this program is in now."""

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def visit(self, network_namespace: int) -> Iterator[None]:
        """The block runs in that namespace, and must not wait. Raises `OSError` where it cannot be entered, `Stranded` where it
        cannot be left.
        """
        setns(network_namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            self._return()

    def close(self) -> None:
        """May be called again."""
        if self._home >= 0:
            os.close(self._home)
        self._home = -1

    def _return(self) -> None:
        for _ in range(_RETURNS):
            try:
                setns(self._home, CLONE_NEWNET)
            except OSError as error:
                if error.errno != errno.ENOMEM:  # setns(2) allocates; what it asks for is small
                    raise Stranded(f"the network namespace cannot be left: {error.strerror}") from error
            else:
                return
        raise Stranded("the network namespace cannot be left: there is no memory")
