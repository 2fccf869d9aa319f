"""Walking a tree that a session has made, by descriptors: however deep and wide it is, and never out of it.

Rules
- The top is looked up below a trusted directory; every directory on the way is opened without following symbolic links, without leaving
  its parent and without crossing into another mount. `..` is never opened: it leads elsewhere after a rename.
- What lies in a directory is told before the directory itself. At most `_DEPTH` directories are open at once: what lies deeper is
  looked up again from the top when the rest is done, and told after the directories above it.
- Nothing is kept of what was told: memory does not grow with the tree.
- An entry that is gone in the meantime, or has become something else, is passed over; it is the session's own race.
- After the deadline the walk ends, and `complete` is false.

Does not change anything.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from coworkd.system.beneath import DIRECTORY, open_beneath

_DEPTH = 256
"""Two descriptors each, within the 1,024 that a process has without asking."""
_DEFERRED_LIMIT_BYTES = 16 * 1024 * 1024
_LOOK_EVERY = 64
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV))
"""No such directory, or none any more: a link, another mount, something else."""


class Entry(NamedTuple):
    """One entry. `directory` is the open directory it lies in, until the next step."""

    directory: int
    parent: bytes
    """Path of the directory, relative to the top; empty for the top itself."""
    name: str
    stat: os.stat_result
    read: bool = True
    """False of a directory that is told again later, behind its content, and of one that lies elsewhere (another mount)."""

    @property
    def path(self) -> bytes:
        name = os.fsencode(self.name)
        return self.parent + b"/" + name if self.parent else name

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)


def open_top(root: bytes, path: bytes) -> int | None:
    """The directory `path` below `root`, the caller's to close; None where there is none (a link is none). Raises `OSError`."""
    try:
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return open_below(root_fd, path)
    finally:
        os.close(root_fd)


def open_below(directory: int, path: bytes) -> int | None:
    """As `open_top`, below an open directory; a path may be of any length."""
    try:
        return open_beneath(directory, path, DIRECTORY, one_mount=True)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


class _Frame:
    """A directory that is being read."""

    __slots__ = ("entries", "fd", "own", "path")

    def __init__(self, fd: int, path: bytes, own: Entry | None) -> None:
        self.fd = fd
        self.path = path
        self.own = own
        self.entries = os.scandir(fd)

    def close(self) -> None:
        self.entries.close()
        os.close(self.fd)


class Walk:
    """One walk below the open directory `top`, which stays the caller's. Iterate once; raises `OSError` for what a disk refuses."""

    def __init__(
        self,
        top: int,
        *,
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
        depth: int = _DEPTH,
    ) -> None:
        self.complete = True
        self._top = top
        self._deadline = deadline
        self._clock = clock
        self._depth = depth
        self._deferred: list[bytes] = []
        self._deferred_bytes = 0
        self._seen = 0

    def __iter__(self) -> Iterator[Entry]:
        yield from self._read(open_beneath(self._top, b"", DIRECTORY), b"")
        while self._deferred and self.complete:
            yield from self._read_deferred(self._deferred.pop())

    def _read_deferred(self, path: bytes) -> Iterator[Entry]:
        self._deferred_bytes -= len(path)
        above, _, name = path.rpartition(b"/")
        parent = open_below(self._top, above)
        if parent is None:
            return
        try:
            fd = open_below(parent, name)
            if fd is None:
                return
            found = os.fstat(fd)
            yield from self._read(fd, path)
            if self.complete:
                yield Entry(parent, above, os.fsdecode(name), found)
        finally:
            os.close(parent)

    def _read(self, fd: int, path: bytes) -> Iterator[Entry]:
        stack = [_Frame(fd, path, None)]
        try:
            while stack:
                frame = stack[-1]
                found = self._next(frame)
                if not self.complete:
                    return
                if found is None:
                    stack.pop().close()
                    if frame.own is not None:
                        yield frame.own
                elif not found.is_directory:
                    yield found
                elif len(stack) == self._depth:
                    self._defer(found.path)
                    yield found._replace(read=False)
                else:
                    below = open_below(frame.fd, os.fsencode(found.name))
                    if below is None:
                        yield found._replace(read=False)
                    else:
                        stack.append(_Frame(below, found.path, found))
        finally:
            for frame in reversed(stack):
                frame.close()

    def _next(self, frame: _Frame) -> Entry | None:
        """The next entry of this directory that is still there; None at its end, and after the deadline."""
        for entry in frame.entries:
            self._seen += 1
            if self._seen % _LOOK_EVERY == 0 and self._clock() >= self._deadline:
                self.complete = False
                return None
            try:
                return Entry(frame.fd, frame.path, entry.name, entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
        return None

    def _defer(self, path: bytes) -> None:
        if self._deferred_bytes + len(path) > _DEFERRED_LIMIT_BYTES:
            self.complete = False
            return
        self._deferred.append(path)
        self._deferred_bytes += len(path)
