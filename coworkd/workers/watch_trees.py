"""The trees that are watched, and where in them a directory lies: by the paths that the kernel gives for descriptors.

Rules
- A tree is held by a descriptor of its top, or of the directory that a single file lies in; it keeps its file system busy until `close`.
- Paths are asked for again after a directory was renamed anywhere, so they are never older than that.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

_DELETED = b" (deleted)"


class Place(NamedTuple):
    """A directory of a tree, relative to its top."""

    tree: Tree
    path: bytes

    def join(self, name: bytes) -> bytes | None:
        """The entry `name` in it, as the tree calls it; None where that is not of the tree."""
        if self.tree.only is not None:
            return b"" if not self.path and name == self.tree.only else None
        if name in (b"", b"."):
            return self.path
        return self.path + b"/" + name if self.path else name


class Tree:
    """One watched tree. Owns its descriptor."""

    def __init__(self, watch: int, path: bytes, *, staged: bool) -> None:
        """Raises `OSError`. No symbolic link is followed at the end of `path`."""
        self.watch = watch
        self.staged = staged
        self.only: bytes | None = None
        """The one file that is watched, where it is one."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        kind = os.lstat(path).st_mode
        if not stat.S_ISDIR(kind):
            path, self.only = os.path.split(path)
        self.fd = os.open(path, flags | os.O_DIRECTORY)
        self.mount = _mount_of(self.fd)
        """By which mount it is seen: paths of one say nothing about those of another."""
        self.path = b""
        self.look()

    def look(self) -> None:
        """Ask for the path of its top again."""
        self.path = path_of(self.fd)

    def place(self, path: bytes) -> Place | None:
        """Where the directory with this path lies in it."""
        if path == self.path:
            return Place(self, b"")
        top = self.path.rstrip(b"/") + b"/"
        return Place(self, path[len(top) :]) if path.startswith(top) else None

    def close(self) -> None:
        os.close(self.fd)


def path_of(fd: int) -> bytes:
    """The path that the kernel gives for a directory, also for one that was deleted a moment ago. Raises `OSError`."""
    path = os.readlink(b"/proc/self/fd/%d" % fd)
    if path.endswith(_DELETED) and os.fstat(fd).st_nlink == 0:
        return path[: -len(_DELETED)]
    return path


def is_whiteout(found: os.stat_result) -> bool:
    """What overlayfs leaves where something of the lower layer was deleted."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _mount_of(fd: int) -> int:
    """Of proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "mnt_id":
                return int(value)
    return -1
