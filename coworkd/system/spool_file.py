"""The file under a spool: a sparse memfd whose file offset is the end of its stream.

Rules
- The description is shared with the launcher, so its offset is moved by `splice`, `append` and `skip` alone. It is asked with
  SEEK_CUR and never set; reading is pread(2).
- A file that is smaller than its offset was cut: it keeps what it has, and what came behind that was thrown away.
- What is let go is a hole of whole pages (fallocate(2), PUNCH_HOLE | KEEP_SIZE): the file's size never shrinks.

One call each, no policy. Sources: splice(2), fallocate(2), lseek(2), memfd_create(2), pipe(7) (pipe capacity).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from coworkd.system import libc

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032
_fallocate = libc.function("fallocate")
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def create(name: str) -> int:
    """A new empty spool file; the caller closes it."""
    return os.memfd_create(name, os.MFD_CLOEXEC)


def splice(pipe_fd: int, target_fd: int, limit_bytes: int) -> int:
    """Move up to `limit_bytes` from a pipe to the offset of `target_fd`, which moves on; 0 is end of file.

    Never blocks on the pipe: raises `BlockingIOError` where it is empty and still has a writer.
    """
    return os.splice(pipe_fd, target_fd, limit_bytes, flags=os.SPLICE_F_NONBLOCK)


def append(fd: int, data: bytes) -> None:
    """Write all of `data` at the file's offset: what cannot be spliced (a terminal)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def size(fd: int) -> int:
    """The offset behind the last byte that was ever written to it; holes do not change that."""
    return os.fstat(fd).st_size


def skip(fd: int, count: int) -> None:
    """Move the end on without a byte: what is thrown away is counted there, and the file's size stays behind."""
    os.lseek(fd, count, os.SEEK_CUR)


def end(fd: int) -> int:
    """The stream offset behind the last byte."""
    return os.lseek(fd, 0, os.SEEK_CUR)


def first_kept(fd: int) -> int:
    """The offset of the first page that is not a hole; `end` where nothing is kept.

    SEEK_DATA moves the offset it works on, so a description of its own is opened for it.
    """
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(own, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return end(fd)
    finally:
        os.close(own)


def punch_hole(fd: int, start: int, length: int) -> None:
    """Give the pages of [start, start + length) back; both are multiples of `PAGE_BYTES`."""
    libc.check(_fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, start, length))


def pipe_bytes(fd: int) -> int:
    """How much a pipe holds."""
    return fcntl.fcntl(fd, _F_GETPIPE_SZ)


def set_pipe_bytes(fd: int, size_bytes: int) -> int:
    """Resize a pipe; returns what it holds now. `PermissionError` past the bounds of pipe(7) without CAP_SYS_RESOURCE."""
    return fcntl.fcntl(fd, _F_SETPIPE_SZ, size_bytes)
