"""Open files and directories: what the kernel calls by a file handle, which here is the descriptor's number.

Rules
- At most `limit` are open; one more is ENFILE, and nobody else's is closed for it.
- A directory is read as a stream: `offset` 1 and 2 are after `.` and `..`, then one more for each entry. Going back, beyond what was given
  out last, starts anew and skips. Entries given out twice are the same, whatever the directory has become meanwhile.

Who opens a descriptor hands it to `Handles.open`, which closes it, at `close` or when all ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from coworkd.folderfs.nodes import Node

_DIRECTORY_TYPE, _LINK_TYPE, _FILE_TYPE, _UNKNOWN_TYPE = 4, 10, 8, 0


class Entry(NamedTuple):
    """One entry of a directory."""

    name: bytes
    inode: int
    kind: int
    """d_type of readdir(3)."""


class Listing:
    """The entries of one open directory, in order."""

    def __init__(self, fd: int, inode: int, parent_inode: int) -> None:
        self._fd = fd
        self._dots = (Entry(b".", inode, _DIRECTORY_TYPE), Entry(b"..", parent_inode, _DIRECTORY_TYPE))
        self._start = 0
        self._kept: list[Entry] = []
        self._rest: Iterator[Entry] = iter(())
        self._begun = False

    def read(self, offset: int) -> Iterator[tuple[int, Entry]]:
        """Entries from `offset` on, each with the offset after it. What lies before is let go of. Raises `OSError`."""
        if not self._begun or offset < self._start or offset == 0:
            self._begin()
        skipped = min(offset - self._start, len(self._kept))
        del self._kept[:skipped]
        self._start += skipped
        while self._start < offset:
            if next(self._rest, None) is None:
                return
            self._start += 1
        for number, entry in enumerate(self._kept):
            yield offset + number + 1, entry
        for entry in self._rest:
            self._kept.append(entry)
            yield self._start + len(self._kept), entry

    def close(self) -> None:
        self._rest = iter(())

    def _begin(self) -> None:
        self._rest = iter(())
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._start, self._kept, self._begun = 0, [], True
        self._rest = self._scan()

    def _scan(self) -> Iterator[Entry]:
        yield from self._dots
        with os.scandir(self._fd) as found:
            for each in found:
                yield Entry(os.fsencode(each.name), each.inode(), _kind_of(each))


def _kind_of(entry: os.DirEntry[str]) -> int:
    try:
        if entry.is_symlink():
            return _LINK_TYPE
        if entry.is_dir(follow_symlinks=False):
            return _DIRECTORY_TYPE
        return _FILE_TYPE if entry.is_file(follow_symlinks=False) else _UNKNOWN_TYPE
    except OSError:
        return _UNKNOWN_TYPE


class Handle:
    """One open file or directory."""

    __slots__ = ("fd", "listing", "node", "pid", "wrote")

    def __init__(self, fd: int, node: Node, pid: int, listing: Listing | None) -> None:
        self.fd = fd
        self.node = node
        self.pid = pid
        """Who opened it, or wrote last."""
        self.listing = listing
        self.wrote = False


class Handles:
    """All that is open in a folder."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[int, Handle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def refuse_if_full(self) -> None:
        """Raises `OSError` (ENFILE)."""
        if len(self._open) >= self._limit:
            raise OSError(errno.ENFILE, "too many files are open in this folder")

    def open(self, fd: int, node: Node, pid: int, listing: Listing | None = None) -> Handle:
        """From here on `fd` belongs to the handle."""
        handle = self._open[fd] = Handle(fd, node, pid, listing)
        if listing is None:
            node.handles.append(fd)
        return handle

    def get(self, number: int) -> Handle:
        """Raises `OSError` (EBADF)."""
        handle = self._open.get(number)
        if handle is None:
            raise OSError(errno.EBADF, "no such open file")
        return handle

    def close(self, number: int) -> None:
        """Raises `OSError` (EBADF)."""
        handle = self.get(number)
        del self._open[number]
        if handle.listing is None:
            handle.node.handles.remove(number)
        else:
            handle.listing.close()
        os.close(number)

    def close_all(self) -> None:
        for number in list(self._open):
            self.close(number)
