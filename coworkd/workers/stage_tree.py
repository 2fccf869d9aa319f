"""A tree of files that is only ever reached from a held descriptor: the source of a folder, or what a session has changed of it.

Rules
- No symbolic link is followed and no mount point crossed on the way to a name (openat2(2)), so nothing of it leads elsewhere, whoever
  changes it meanwhile. A directory that is moved while it is held stays the one that was found.
- Nothing recurses: a tree may be a thousand directories deep. At most `_HELD` of them are held open at once.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator

from coworkd.system.beneath import DIRECTORY, open_beneath
from coworkd.workers.stage_entries import join, look, name_of, parent_of

_HELD = 16
_NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
"""There is nothing of that name, or the way to it is no directory (any more)."""


class Tree:
    """The directory `root_fd` and all below it; it owns that descriptor. Use it as a context manager."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        self._held: OrderedDict[bytes, int] = OrderedDict()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *exception: object) -> None:
        self.let_go()
        os.close(self.root_fd)

    def let_go(self) -> None:
        """Close what is held but the root: after directories were removed or renamed."""
        while self._held:
            os.close(self._held.popitem()[1])

    def forget(self, path: bytes) -> None:
        """Close the directory `path` where it is held: it is not there any more, or another one is."""
        fd = self._held.pop(path, None)
        if fd is not None:
            os.close(fd)

    def directory(self, path: bytes) -> int:
        """A descriptor of the directory, held here for a while: use it before the next call. Raises `OSError`."""
        if not path:
            return self.root_fd
        fd = self._held.pop(path, None)
        if fd is None:
            fd = self.open(path, DIRECTORY)
            if len(self._held) >= _HELD:
                os.close(self._held.popitem(last=False)[1])
        self._held[path] = fd
        return fd

    def open(self, path: bytes, flags: int) -> int:
        """Open what `path` is; the caller closes it. A fifo is not waited for."""
        return open_beneath(self.root_fd, path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, one_mount=True)

    def look(self, path: bytes) -> os.stat_result | None:
        """What `path` is; None where there is nothing, or no way to it. Raises `OSError` for all else."""
        if not path:
            return os.fstat(self.root_fd)
        try:
            directory = self.directory(parent_of(path))
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise
        return look(name_of(path), directory)

    def link(self, path: bytes) -> bytes:
        """What the symbolic link `path` holds."""
        return os.readlink(name_of(path), dir_fd=self.directory(parent_of(path)))

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted."""
        with os.scandir(self.directory(path)) as entries:
            return sorted(os.fsencode(entry.name) for entry in entries)

    def below(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """All that lies below the directory `path`, each directory before what is in it; what goes away meanwhile is left out.

        A directory that cannot be read raises `OSError`.
        """
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            try:
                names = self.names(directory)
            except OSError as error:
                if error.errno in _NOT_THERE:
                    continue
                raise
            inner = []
            for name in names:
                found = self.look(join(directory, name))
                if found is None:
                    continue
                yield join(directory, name), found
                if stat.S_ISDIR(found.st_mode):
                    inner.append(join(directory, name))
            waiting.extend(reversed(inner))
