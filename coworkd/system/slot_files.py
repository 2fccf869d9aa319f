"""Files below one held directory, by relative path and never through a symbolic link: read, written, synced, renamed, removed.

Implements `release.store.SlotFiles`. Regular files only: what is none is refused before a byte of it is read (a fifo would hang).
Sources: openat2(2), fsync(2), syncfs(2), rename(2).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from coworkd.system.beneath import DIRECTORY, open_beneath, syncfs
from coworkd.system.remove_tree import remove_tree_at

_CHUNK_BYTES = 1024 * 1024
ENTRY_LIMIT = 20_000


class FileEntry(NamedTuple):
    name: str
    kind: Literal["file", "directory", "other"]
    size: int


class HeldFiles:
    """Files below `path`. `close`, or use it as a context."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> HeldFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def entries(self, path: str) -> list[FileEntry]:
        """By name. Raises `OSError`: EFBIG for more than `ENTRY_LIMIT`."""
        fd = self._open(path, DIRECTORY)
        try:
            found = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    found.append(_entry(entry))
                    if len(found) > ENTRY_LIMIT:
                        raise OSError(errno.EFBIG, f"it has more than {ENTRY_LIMIT} entries", path)
        finally:
            os.close(fd)
        return sorted(found)

    def read(self, path: str, limit_bytes: int) -> bytes:
        """At most one byte more than `limit_bytes`."""
        fd = self._open_file(path)
        with open(fd, "rb", buffering=0) as file:
            parts, left = [], limit_bytes + 1
            while left and (data := file.read(left)):
                parts.append(data)
                left -= len(data)
        return b"".join(parts)

    def chunks(self, path: str) -> Iterator[bytes]:
        fd = self._open_file(path)
        try:
            while data := os.read(fd, _CHUNK_BYTES):
                yield data
        finally:
            os.close(fd)

    def make_directory(self, path: str) -> None:
        parent, name = self._open_parent(path)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)

    def write(self, path: str, chunks: Iterable[bytes], mode: int, *, sync: bool) -> None:
        """A new file; with `sync` its data is durable."""
        fd = self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(fd, "wb", buffering=0) as file:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) or 0 :]
            os.fchmod(fd, mode)
            if sync:
                os.fsync(fd)

    def sync_directory(self, path: str) -> None:
        fd = self._open(path, DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_all(self) -> None:
        """The whole file system, which takes one flush where a thousand files would take a thousand."""
        syncfs(self._fd)

    def rename(self, old: str, new: str) -> None:
        old_parent, old_name = self._open_parent(old)
        try:
            new_parent, new_name = self._open_parent(new)
            try:
                os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
            finally:
                os.close(new_parent)
        finally:
            os.close(old_parent)

    def remove(self, path: str) -> None:
        """A file, or a directory with all below it; nothing, where it is not there."""
        parent, name = self._open_parent(path)
        try:
            found = os.lstat(name, dir_fd=parent)
            if stat.S_ISDIR(found.st_mode):
                remove_tree_at(parent, os.fsencode(name))
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        finally:
            os.close(parent)

    def _open_parent(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self._open(parent, DIRECTORY), name

    def _open_file(self, path: str) -> int:
        # O_NONBLOCK: a fifo is opened, seen to be one, and refused.
        fd = self._open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no plain file", path)
        return fd

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        return open_beneath(self._fd, os.fsencode(path), flags | os.O_CLOEXEC, mode=mode, one_mount=True)


def _entry(entry: os.DirEntry[str]) -> FileEntry:
    if entry.is_dir(follow_symlinks=False):
        return FileEntry(entry.name, "directory", 0)
    if entry.is_file(follow_symlinks=False):
        return FileEntry(entry.name, "file", entry.stat(follow_symlinks=False).st_size)
    return FileEntry(entry.name, "other", 0)
