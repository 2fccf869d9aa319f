"""Calls on files that Python 3.10 has no name for: birth times, rename with flags, holes. One thin function each.

Sources: statx(2), renameat2(2), fallocate(2).
"""

from __future__ import annotations

import ctypes
import struct

from coworkd.system import libc

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE = 0x01, 0x02, 0x10

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_INO, _STATX_BTIME = 0x100, 0x800
_STATX = struct.Struct("=I28xQ40xqI")
"""What is asked for of struct statx: its mask, the inode's number, the birth time."""
_NS = 1_000_000_000

_statx = libc.function("statx")
_renameat2 = libc.function("renameat2")
_fallocate = libc.function("fallocate")
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_buffer = ctypes.create_string_buffer(256)


def inode_and_birth(directory_fd: int, name: bytes) -> tuple[int, int]:
    """Inode number and birth time in nanoseconds of `name` itself, which is not followed; 0 where its file system keeps none.

    An empty `name` is the file that `directory_fd` refers to. Not for several threads at once.
    """
    flags = _AT_SYMLINK_NOFOLLOW if name else _AT_EMPTY_PATH
    libc.check(_statx(directory_fd, name, flags, _STATX_INO | _STATX_BTIME, _buffer), name)
    mask, inode, seconds, nanoseconds = _STATX.unpack_from(_buffer)
    return inode, seconds * _NS + nanoseconds if mask & _STATX_BTIME else 0


def renameat2(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes, flags: int) -> None:
    """renameat2(2). EINVAL: the file system does not know one of the `flags`."""
    libc.check(_renameat2(from_fd, from_name, to_fd, to_name, flags), from_name)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    libc.check(_fallocate(fd, mode, offset, length))
