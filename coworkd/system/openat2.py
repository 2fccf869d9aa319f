"""openat2(2): open below a directory without ever leaving it.

EAGAIN means a rename raced with the lookup; it is tried again a bounded number of times and then told.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from coworkd.system import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437
_RACES = 16


def openat2(directory_fd: int, path: bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` relative to `directory_fd` under the `resolve` rules; the caller closes the result.

    Raises `OSError`: EXDEV where the path leads out, ELOOP where a symbolic link is forbidden, EAGAIN after 16 lost races.
    """
    how = ctypes.create_string_buffer(struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve), 24)
    for _ in range(_RACES):
        try:
            return libc.syscall(_SYS_OPENAT2, directory_fd, path, how, 24)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
    raise OSError(errno.EAGAIN, "the path kept changing while it was looked up", os.fsdecode(path))
