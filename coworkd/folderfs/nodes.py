"""What the kernel knows by number: nodes, each a file with its place in the folder, and few descriptors for many of them.

Rules
- A node is found again by (device, inode) where it stands at the same name or has several (hard links); a file that turns up at another
  name, or as another kind, is another node: the host moved or replaced it.
- The kernel counts what it was told (`lookups`), and forgets; a node goes when the count is nil.
- Only directories have a descriptor of their own (O_PATH), of which the `limit` last used stay open after each request; others are opened
  again from the nearest one above, one name at a time, never through a symbolic link, and must be what they were: ESTALE otherwise.
- Files are reached by directory and name, and checked in the same way; one that is open, by what it was opened as, even with no name left.

Not for several threads. Descriptors of open files belong to `handles`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict

from coworkd.folderfs.fuse_words import ROOT_NODE
from coworkd.folderfs.names import Path

NODES = 1_000_000
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Node:
    """One file, directory, or whatever else has an inode."""

    __slots__ = (
        "cached",
        "dev",
        "fd",
        "gone",
        "handles",
        "ino",
        "kind",
        "last",
        "lookups",
        "name",
        "number",
        "others",
        "parent",
    )

    def __init__(self, number: int, parent: Node | None, name: bytes, found: os.stat_result) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.dev = found.st_dev
        self.ino = found.st_ino
        self.kind = stat.S_IFMT(found.st_mode)
        self.lookups = 0
        self.fd = -1
        """Of a directory: where it is open."""
        self.handles: list[int] = []
        """Of what is open: the descriptors, the newest last."""
        self.others: list[tuple[Node, bytes]] = []
        """Further names of the same file."""
        self.cached: tuple[int, int, int] | None = None
        """What the pages in the kernel's cache are of: mtime, ctime, size."""
        self.last: os.stat_result | None = None
        """What is left of a fifo or socket that is gone, which somebody may have open still: that is the kernel's own affair."""
        self.gone = False
        """Whether its last name was taken away through this file system."""

    def is_of(self, found: os.stat_result) -> bool:
        return self.ino == found.st_ino and self.dev == found.st_dev and self.kind == stat.S_IFMT(found.st_mode)

    def path(self) -> Path:
        names = []
        node: Node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return tuple(reversed(names))


class Nodes:
    """All nodes of a folder."""

    def __init__(self, source_fd: int, *, descriptors: int, limit: int = NODES) -> None:
        """`source_fd`, a descriptor of the folder, stays the caller's. Raises `OSError`."""
        self.root = Node(ROOT_NODE, None, b"", os.stat(source_fd))
        self.root.fd = source_fd
        self.root.lookups = 1
        self._descriptors = descriptors
        self._limit = limit
        self._by_number = {ROOT_NODE: self.root}
        self._by_inode = {(self.root.dev, self.root.ino): self.root}
        self._open: OrderedDict[int, Node] = OrderedDict()
        self._next = ROOT_NODE + 1

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Node:
        """Raises `OSError` (ESTALE) for one that the kernel does not know."""
        node = self._by_number.get(number)
        if node is None:
            raise OSError(errno.ESTALE, "no such node")
        return node

    def enter(self, parent: Node, name: bytes, found: os.stat_result) -> Node:
        """The node of `name` in `parent`, which is `found`; the kernel is about to be told, so it counts. Raises `OSError` (ENOMEM)."""
        key = (found.st_dev, found.st_ino)
        node = self._by_inode.get(key)
        if node is None or not self._is_still(node, parent, name, found):
            if len(self._by_number) >= self._limit:
                raise OSError(errno.ENOMEM, "too many files are in use in this folder")
            node = self._by_inode[key] = Node(self._next, parent, name, found)
            self._next += 1
            self._by_number[node.number] = node
        node.lookups += 1
        return node

    def enter_nameless(self, parent: Node, found: os.stat_result) -> Node:
        """The node of a file that was made without a name (O_TMPFILE)."""
        node = self.enter(parent, b"", found)
        node.gone = True
        return node

    def forget(self, number: int, count: int) -> None:
        """The kernel takes back that it knows it, `count` times."""
        node = self._by_number.get(number)
        if node is None or node is self.root:
            return
        node.lookups -= count
        if node.lookups > 0:
            return
        del self._by_number[number]
        key = (node.dev, node.ino)
        if self._by_inode.get(key) is node:
            del self._by_inode[key]
        self._close(node)

    def find(self, parent: Node, name: bytes, found: os.stat_result) -> Node | None:
        """The node that is known to stand there."""
        node = self._by_inode.get((found.st_dev, found.st_ino))
        if node is None or not node.is_of(found):
            return None
        if (node.parent is parent and node.name == name) or (parent, name) in node.others:
            return node
        return None

    def renamed(self, node: Node, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> None:
        """One of its names has become another."""
        if (node.parent, node.name) == old:
            node.parent, node.name = new
        else:
            node.others = [new if each == old else each for each in node.others]

    def linked(self, node: Node, parent: Node, name: bytes) -> None:
        """It has got one more name."""
        if not node.gone:
            node.others.append((parent, name))
            return
        node.parent, node.name, node.gone = parent, name, False
        self._by_inode[node.dev, node.ino] = node

    def unlinked(self, node: Node, parent: Node, name: bytes, found: os.stat_result) -> None:
        """One of its names is gone; it was `found` before."""
        if node.parent is parent and node.name == name:
            if not node.others:
                node.gone = True
                if node.kind not in (stat.S_IFREG, stat.S_IFDIR):
                    node.last = _without_names(found)
                if self._by_inode.get((node.dev, node.ino)) is node:
                    del self._by_inode[node.dev, node.ino]  # the inode's number may be used again at once
                return
            node.parent, node.name = node.others.pop()
        elif (parent, name) in node.others:
            node.others.remove((parent, name))

    def stat(self, node: Node) -> os.stat_result:
        """Of what the node is. Raises `OSError`: ESTALE where it is no longer what it was."""
        if node.handles:
            return os.stat(node.handles[-1])
        if node.kind == stat.S_IFDIR:
            return os.stat(self.directory(node))
        if node.gone and node.last is not None:
            return node.last
        return self.place(node)[2]

    def place(self, node: Node) -> tuple[int, bytes, os.stat_result]:
        """A directory's descriptor, good for this request, a name in it where the node stands now, and what it is.

        Raises `OSError`: ESTALE where it does not stand anywhere that is known.
        """
        closed: list[tuple[Node, bytes]] = []
        while not node.gone and node.parent is not None:
            try:
                directory = self.directory(node.parent)
                found = os.stat(node.name, dir_fd=directory, follow_symlinks=False)
                if node.is_of(found):
                    node.others += closed
                    return directory, node.name, found
            except PermissionError:  # a directory that may not be searched: its names are kept
                closed.append((node.parent, node.name))
            except (FileNotFoundError, NotADirectoryError):
                pass
            if not node.others:
                break
            node.parent, node.name = node.others.pop()
        if closed:
            (node.parent, node.name), *node.others = closed
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        raise OSError(errno.ESTALE, "it is not there any more")

    def directory(self, node: Node) -> int:
        """A descriptor (O_PATH) of a directory, good for this request. Raises `OSError` (ESTALE, ENOTDIR)."""
        if node.fd < 0:
            self._reopen(node)
        elif node.parent is not None:
            self._open.move_to_end(node.number)
        return node.fd

    def trim(self) -> None:
        """Between requests: close the descriptors that were used longest ago."""
        while len(self._open) > self._descriptors:
            _, node = self._open.popitem(last=False)
            self._close(node)

    def shrink(self) -> None:
        """Let go of all descriptors, for want of any."""
        for node in list(self._open.values()):
            self._close(node)

    def _is_still(self, node: Node, parent: Node, name: bytes, found: os.stat_result) -> bool:
        if not node.is_of(found) or node.gone:
            return False
        if node.parent is parent and node.name == name:
            return True
        if found.st_nlink > 1 and node.kind != stat.S_IFDIR:
            if (parent, name) not in node.others:
                node.others.append((parent, name))
            return True
        return False

    def _reopen(self, node: Node) -> None:
        missing = []
        above: Node | None = node
        while above is not None and above.fd < 0:
            missing.append(above)
            above = above.parent
        if node.kind != stat.S_IFDIR or above is None:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        fd = above.fd
        for each in reversed(missing):
            if each.gone:
                raise OSError(errno.ESTALE, "it is not there any more")
            try:
                opened = os.open(each.name, _DIRECTORY, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                raise OSError(errno.ESTALE, "it is not there any more") from None
            if not each.is_of(os.stat(opened)):
                os.close(opened)
                raise OSError(errno.ESTALE, "another one stands there")
            each.fd = fd = opened
            self._open[each.number] = each

    def _close(self, node: Node) -> None:
        if node.fd >= 0 and node.parent is not None:
            self._open.pop(node.number, None)
            os.close(node.fd)
            node.fd = -1


def _without_names(found: os.stat_result) -> os.stat_result:
    """`found` with a link count of 0."""
    times = {name: getattr(found, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
    rest = {name: getattr(found, name) for name in ("st_blksize", "st_blocks", "st_rdev")}
    return os.stat_result((*found[:3], 0, *found[4:]), {**times, **rest})
