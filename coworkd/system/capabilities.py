"""Capabilities: giving them up, all or all but some, and seeing what is left. Sources: capabilities(7), capset(2), proc_pid_status(5)."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable

from coworkd.system import libc

_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24

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
    keep_only(())


def keep_only(kept: Iterable[int]) -> None:
    """Have no other capability than `kept`, which must be held now, in the permitted and effective sets; the other sets are empty.

    Raises `OSError` (EPERM) for one that is not held.
    """
    _set(sum(1 << capability for capability in set(kept)))


def give_up(*lost: int) -> None:
    """Lose these of the permitted and effective sets, and what is inheritable and ambient."""
    _set(held().get("CapPrm", 0) & ~sum(1 << capability for capability in set(lost)))


def _set(mask: int) -> None:
    libc.check(_prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0))
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    sets = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable; twice 32 bits
    libc.check(_capset(header, ctypes.create_string_buffer(sets, 24)))


def held() -> dict[str, int]:
    """Set → capabilities as a bit mask, as /proc/self/status tells them, the empty ones left out."""
    found = {}
    with open("/proc/self/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in _SETS and int(value, 16):
                found[name] = int(value, 16)
    return found
