"""Deleting what can be had again: the files in named directories of a tree, by age and size; or telling what would go.

Rules
- A dry run goes the same way and only leaves out the unlink: it tells exactly what would go.
- Symbolic links go, and nothing they lead to is looked at. The place itself stays, and is passed over where it is a link.
- A directory goes when nothing of it stays and it is itself old enough; what a command puts in meanwhile keeps it.
- What cannot be deleted (an immutable file) stays and is not told; the rest goes on.
"""

from __future__ import annotations

import errno
import os
import time

from msgspec import Struct

from coworkd.model.measure import PrunedEntry, PruneTree, TreePruned
from coworkd.workers.measure_tree import bytes_of, share_of
from coworkd.workers.measure_walk import Entry, Walk, open_below, open_top

_PATHS_LIMIT_BYTES = 256 * 1024
"""Of all that is told of one directory: whoever makes the names must not make the answer too long."""
_STAYS = frozenset((errno.EPERM, errno.ENOTEMPTY, errno.EBUSY, errno.EISDIR, errno.ENOTDIR, errno.EEXIST))
"""It is immutable, in use, or something else by now."""


class _Fate(Struct):
    """What has become of one directory's content so far."""

    bytes: float = 0.0
    files: float = 0.0
    kept: bool = False
    entries: list[PrunedEntry] = []
    left_out: int = 0
    paths_bytes: int = 0

    def tell(self, entry: PrunedEntry, limit: int) -> None:
        if len(self.entries) < limit and self.paths_bytes + len(entry.path) <= _PATHS_LIMIT_BYTES:
            self.entries.append(entry)
            self.paths_bytes += len(entry.path)
        else:
            self.left_out += 1

    def take_over(self, below: _Fate, limit: int) -> None:
        self.bytes += below.bytes
        self.files += below.files
        self.left_out += below.left_out
        for entry in below.entries:
            self.tell(entry, limit)


def prune(request: PruneTree) -> TreePruned:
    """Raises `OSError` for what a disk refuses; what is gone by then is gone."""
    total, complete = _Fate(), True
    top = open_top(request.root, request.path)
    if top is not None:
        deadline = time.monotonic() + request.deadline_s
        try:
            for place in request.places:
                fd = open_below(top, place)
                if fd is None:
                    continue
                try:
                    complete &= _Place(request, place, total).prune(fd, deadline)
                finally:
                    os.close(fd)
        finally:
            os.close(top)
    return TreePruned(
        id=request.id,
        size_bytes=round(total.bytes),
        files=round(total.files),
        entries=tuple(total.entries),
        left_out=total.left_out,
        complete=complete,
    )


class _Place:
    """One directory whose content goes."""

    def __init__(self, request: PruneTree, place: bytes, total: _Fate) -> None:
        self._request = request
        self._place = place
        self._total = total
        self._fates: dict[bytes, _Fate] = {}
        """Of each directory that is being read, by its path: no more than the tree is deep."""

    def prune(self, fd: int, deadline: float) -> bool:
        """Whether all of it was looked at."""
        walk = Walk(fd, deadline=deadline)
        try:
            for entry in walk:
                above = self._fates.setdefault(entry.parent, _Fate())
                if entry.is_directory:
                    self._leave(entry, above)
                else:
                    self._judge(entry, above)
        finally:
            for fate in self._fates.values():
                self._total.take_over(fate, self._request.entry_limit)
        return walk.complete

    def _judge(self, entry: Entry, above: _Fate) -> None:
        large = entry.stat.st_size > self._request.larger_than_bytes or not self._request.larger_than_bytes
        if not (large and self._is_old(entry.stat) and self._unlink(entry)):
            above.kept = True
            return
        size, files = bytes_of(entry.stat), share_of(entry.stat)
        above.bytes += size
        above.files += files
        self._tell(above, entry.path, size, 1)

    def _leave(self, entry: Entry, above: _Fate) -> None:
        fate = self._fates.pop(entry.path, _Fate())
        wanted = fate.files or not self._request.larger_than_bytes
        goes = entry.read and not fate.kept and wanted and self._is_old(entry.stat)
        if not goes or not self._unlink(entry):
            above.kept = True
            above.take_over(fate, self._request.entry_limit)
            return
        size, files = fate.bytes + bytes_of(entry.stat), fate.files + 1
        above.bytes += size
        above.files += files
        self._tell(above, entry.path, size, files)

    def _is_old(self, found: os.stat_result) -> bool:
        before = self._request.before
        return not before or max(found.st_atime, found.st_mtime, found.st_ctime) < before

    def _unlink(self, entry: Entry) -> bool:
        if self._request.dry_run:
            return True
        remove = os.rmdir if entry.is_directory else os.unlink
        try:
            remove(entry.name, dir_fd=entry.directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _STAYS:
                raise
            return False
        return True

    def _tell(self, above: _Fate, path: bytes, size: float, files: float) -> None:
        told = PrunedEntry(path=self._place + b"/" + path, size_bytes=round(size), files=round(files))
        above.tell(told, self._request.entry_limit)
