"""renameat2(2): a rename that replaces nothing. Raises `OSError`: EEXIST, and EINVAL where the file system cannot promise it."""

from __future__ import annotations

import ctypes

from coworkd.system import libc

_RENAME_NOREPLACE = 1


def rename_noreplace(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
    """Give `source` below `source_fd` the name `target` below `target_fd`, unless something has it."""
    call = libc.function("renameat2")
    libc.check(
        call(ctypes.c_int(source_fd), source, ctypes.c_int(target_fd), target, ctypes.c_uint(_RENAME_NOREPLACE)), target
    )
