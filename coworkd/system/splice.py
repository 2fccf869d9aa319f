"""splice(2): bytes from one descriptor to another by way of a pipe, without a copy to user space.

Thin: call, raise `OSError`. Everything is non-blocking, `BlockingIOError` says that nothing could move now: for a full destination as
well as for an empty source. Sources: splice(2), pipe(7), fcntl(2) F_SETPIPE_SZ.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import termios

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


def splice(source: int, destination: int, count: int) -> int:
    """Move up to `count` bytes; one of the two is a pipe. Returns how many moved, 0 at the source's end of file.

    A socket decides by its own O_NONBLOCK whether this waits, not by the flag.
    """
    return os.splice(source, destination, count, flags=_FLAGS)


def open_pipe(size_bytes: int | None = None) -> tuple[int, int]:
    """A non-blocking pipe, read end first; both belong to the caller.

    `size_bytes` is a wish: without CAP_SYS_RESOURCE a user's pipes may hold pipe-user-pages-soft pages together (64 MiB), past which
    `resize_pipe` gives EPERM and a new pipe has 8 KiB.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    if size_bytes is not None:
        with contextlib.suppress(PermissionError):
            resize_pipe(write, size_bytes)
    return read, write


def resize_pipe(pipe: int, size_bytes: int) -> int:
    """Have `pipe` hold `size_bytes` or a little more; returns what it holds. Raises `OSError`: EPERM, and EBUSY if more is in it."""
    return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size_bytes)


def readable_bytes(pipe: int) -> int:
    """How many bytes are in it (FIONREAD)."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
