"""Namespaces: unshare(2), setns(2), and the one interface a new network namespace needs up.

A network namespace starts with `lo` down. setns is per thread, so only single-threaded programs call it.
Sources: namespaces(7), netdevice(7).
"""

from __future__ import annotations

import fcntl
import socket
import struct

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
