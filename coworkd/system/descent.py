"""Going down a tree of directories and up again, by one descriptor, however deep it is and whoever works in it meanwhile.

Rules
- Only real directories are entered, never through a symbolic link.
- Going up is by `..`, and checked: a directory that was moved away meanwhile ends the walk with ESTALE instead of leading it elsewhere.
- Nothing recurses and one descriptor is open, so neither depth nor length of a path has a bound.

Source: openat(2); fts(3) and rm(1) do the same.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Descent:
    """A place below `top`, at first `top` itself; `fd` is where it is now. Use it in a `with`."""

    def __init__(self, top: int) -> None:
        """`top` stays the caller's. Raises `OSError`."""
        self.fd = os.open(".", DIRECTORY, dir_fd=top)
        self._above: list[tuple[int, int]] = []
        """Device and inode of each directory on the way."""

    @property
    def depth(self) -> int:
        return len(self._above)

    def enter(self, name: bytes) -> None:
        """Go into the directory `name`. Raises `OSError`, and stays: ENOTDIR or ELOOP where it is none."""
        below = os.open(name, DIRECTORY, dir_fd=self.fd)
        try:
            here = os.fstat(self.fd)
        except OSError:
            os.close(below)
            raise
        self._above.append((here.st_dev, here.st_ino))
        os.close(self.fd)
        self.fd = below

    def leave(self) -> None:
        """Go up again. Raises `OSError`: ESTALE where what is above now is not where this came from."""
        above = os.open("..", DIRECTORY, dir_fd=self.fd)
        there = os.fstat(above)
        if (there.st_dev, there.st_ino) != self._above[-1]:
            os.close(above)
            raise OSError(errno.ESTALE, "a directory was moved while it was walked through")
        self._above.pop()
        os.close(self.fd)
        self.fd = above

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
