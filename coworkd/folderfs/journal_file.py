"""The file that a folder's journal is in: one file system's alone.

Rules
- Who has it open has it locked. A file system that was taken away while somebody used it goes on for him, and so does what it writes down;
  the next one under the same name leaves that file to it, and goes on in a copy of what it had written by then.
- Where there is no room for a copy, the next one begins with nothing: all names are the user's.

Sources: flock(2), lseek(2) SEEK_DATA.
"""

from __future__ import annotations

import fcntl
import os

from coworkd.folderfs.journal import BLOCK_BYTES

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 16 * 1024 * 1024


def open_journal(path: bytes) -> int:
    """A descriptor of the journal, locked until it is closed. Raises `OSError`."""
    fd = os.open(path, _FLAGS, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return _replace(path, fd)
        finally:
            os.close(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _replace(path: bytes, old: int) -> int:
    new_path = path + b".new"
    new = os.open(new_path, _FLAGS | os.O_TRUNC, 0o600)
    try:
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            _copy(old, new)
        except OSError:
            os.ftruncate(new, 0)
        os.rename(new_path, path)
    except OSError:
        os.close(new)
        raise
    return new


def _copy(old: int, new: int) -> None:
    """From the block of the first data on: gaps end at blocks."""
    size = os.stat(old).st_size
    offset = os.lseek(old, 0, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES if size else 0
    written = 0
    while offset < size and (piece := os.pread(old, min(_COPY_BYTES, size - offset), offset)):
        count = os.pwrite(new, piece, written)
        offset += count
        written += count
