"""Giving a file to somebody by a descriptor that may be O_PATH, which fchown(2) refuses. Sources: fchownat(2), open(2)."""

from __future__ import annotations

import ctypes

from coworkd.system import libc

_AT_EMPTY_PATH = 0x1000

_fchownat = libc.function("fchownat")
_fchownat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int]


def give(fd: int, uid: int, gid: int) -> None:
    """Make `uid` and `gid` own what `fd` is: a symbolic link itself, never what it leads to. Raises `OSError`."""
    libc.check(_fchownat(fd, b"", uid, gid, _AT_EMPTY_PATH))
