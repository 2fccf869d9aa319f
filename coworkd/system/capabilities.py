"""Capabilities: giving all of them up, and seeing that they are gone. Sources: capabilities(7), capset(2), proc_pid_status(5)."""

from __future__ import annotations

import ctypes
import errno
import struct

from coworkd.system import libc

_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

_prctl = libc.function("prctl")
_capset = libc.function("capset")


def drop_bounding_set() -> None:
    """Empty the bounding set: no later execve(2) can give any. Needs CAP_SETPCAP; raises `OSError` (EPERM) without."""
    for capability in range(64):
        try:
            libc.check(_prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0))
        except OSError as error:
            if error.errno == errno.EINVAL:  # the kernel knows no more
                return
            raise


def drop_all() -> None:
    """Empty the ambient, inheritable, permitted and effective sets of the calling thread."""
    libc.check(_prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0))
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    libc.check(_capset(header, ctypes.create_string_buffer(24)))


def held() -> dict[str, int]:
    """Set → capabilities as a bit mask, as /proc/self/status tells them, the empty ones left out."""
    found = {}
    with open("/proc/self/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in _SETS and int(value, 16):
                found[name] = int(value, 16)
    return found
