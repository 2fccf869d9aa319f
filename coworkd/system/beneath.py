"""Names below a held directory, however deep, and never through a symbolic link.

Rules
- A path is relative, bytes, without `.`, `..` or empty parts; `b""` is the directory itself.
- openat2(2) takes at most PATH_MAX bytes at once: a longer path is gone along in hops, each from a held descriptor.

Sources: openat2(2), renameat2(2), statx(2).
"""

from __future__ import annotations

import ctypes
import os

from coworkd.system import libc
from coworkd.system.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
RENAME_NOREPLACE = 0x1
RENAME_EXCHANGE = 0x2
_HOP_BYTES = 4000
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

_renameat2 = libc.function("renameat2")
_renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_syncfs = libc.function("syncfs")


def open_beneath(directory_fd: int, path: bytes, flags: int, *, mode: int = 0, one_mount: bool = False) -> int:
    """Open `path`; the caller closes the result. With `one_mount` a mount point on the way is EXDEV. Raises `OSError`."""
    resolve = _RESOLVE | (RESOLVE_NO_XDEV if one_mount else 0)
    if len(path) <= _HOP_BYTES:
        return openat2(directory_fd, path or b".", flags, resolve=resolve, mode=mode)
    held = -1
    try:
        while len(path) > _HOP_BYTES:
            cut = path.rindex(b"/", 0, _HOP_BYTES)
            hop = openat2(directory_fd if held < 0 else held, path[:cut], os.O_PATH | os.O_DIRECTORY, resolve=resolve)
            if held >= 0:
                os.close(held)
            held, path = hop, path[cut + 1 :]
        return openat2(held, path, flags, resolve=resolve, mode=mode)
    finally:
        if held >= 0:
            os.close(held)


def renameat2(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    """renameat2(2). EINVAL: the file system does not know the flag."""
    libc.check(_renameat2(old_fd, old, new_fd, new, flags), new)


def syncfs(fd: int) -> None:
    """Write all of the file system that `fd` lies on to its device. An error since the last call is told once (syncfs(2))."""
    libc.check(_syncfs(fd))
