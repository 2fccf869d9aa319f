"""libc by name: call, test, raise with errno.

Python 3.10 and 3.11 have no setns, unshare, mount or raw syscall; `ctypes.util.find_library` forks a compiler, so the
library is opened by its soname (glibc's `libc.so.6`).
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL("libc.so.6", use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def check(result: int, *paths: str | bytes | None) -> int:
    """Return `result`, or raise `OSError` from errno when it is -1; `paths` go into the error's file names."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *paths[:1])
    return result


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """syscall(2). Integers are passed as long, bytes and buffers as pointers; raises `OSError`."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(_syscall(ctypes.c_long(number), *converted))


def function(name: str) -> ctypes._CFuncPtr:  # type: ignore[name-defined]  # typeshed hides ctypes' function type
    """The C function `name`; pass its result to `check`."""
    return getattr(_libc, name)
