"""What a new home begins with: a copy of the admin's skeleton directory, bounded. Blocking.

Rules
- Directories, regular files and symbolic links; a link is copied as it stands. Whatever else lies there is left out.
- What is copied belongs to the session, keeps its permission bits, and has no set-id or sticky bit.
- A skeleton that is larger than the bounds is refused whole: half a skeleton is worse than none.

Does not follow links: the source is the admin's, the target is a directory nobody else can reach yet.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

ENTRIES_LIMIT = 2000
BYTES_LIMIT = 32 * 1024 * 1024
_DEPTH_LIMIT = 16
_PIECE_BYTES = 256 * 1024


class SkeletonRefused(OSError):
    """It is too large, or too deep."""


class _Copy:
    """One copy, and what it has come to."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._entries = 0
        self._bytes = 0

    def directory(self, source: int, target: int, depth: int) -> None:
        if depth > _DEPTH_LIMIT:
            raise SkeletonRefused(errno.EFBIG, f"it is more than {_DEPTH_LIMIT} directories deep")
        with os.scandir(source) as entries:
            for entry in entries:
                self._entries += 1
                self._count(0)
                self._entry(entry.name, source, target, depth)

    def _entry(self, name: str, source: int, target: int, depth: int) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, self._uid, self._uid, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY
            with _opened(name, flags, source) as below, _opened(name, flags, target) as made:
                self.directory(below, made, depth + 1)
                self._give(made, found.st_mode)
        elif stat.S_ISREG(found.st_mode):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with _opened(name, os.O_RDONLY | os.O_NONBLOCK, source) as below, _opened(name, flags, target) as made:
                self._file(below, made)
                self._give(made, found.st_mode)

    def _file(self, source: int, target: int) -> None:
        """In pieces: a file that grows meanwhile meets the bound, too."""
        while piece := os.read(source, _PIECE_BYTES):
            self._count(len(piece))
            remaining = memoryview(piece)
            while remaining:
                remaining = remaining[os.write(target, remaining) :]

    def _give(self, fd: int, mode: int) -> None:
        os.fchown(fd, self._uid, self._uid)
        os.fchmod(fd, stat.S_IMODE(mode) & 0o777)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._entries > ENTRIES_LIMIT or self._bytes > BYTES_LIMIT:
            raise SkeletonRefused(errno.EFBIG, f"it is larger than {ENTRIES_LIMIT} entries or {BYTES_LIMIT} bytes")


@contextmanager
def _opened(name: str, flags: int, directory: int) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def copy_skeleton(skeleton: str, target: int, uid: int) -> None:
    """Copy what lies in `skeleton` into the open, empty directory `target`. Raises `OSError`, `SkeletonRefused` among them."""
    source = os.open(skeleton, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _Copy(uid).directory(source, target, 0)
    finally:
        os.close(source)
