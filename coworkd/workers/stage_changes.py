"""What a stage holds back: its upper directory, as overlayfs left it, against the source. Only looks; nothing is changed.

What overlayfs leaves (kernel: filesystems/overlayfs): a file, link or directory of its own for everything that was made or changed; a
character device 0/0, a whiteout, for what is gone; the attribute `overlay.opaque` on a directory that hides what the source has there.
The overlay is mounted without `redirect_dir`, so that a directory of the source is never renamed in place.

Rules
- A file that was copied up and holds the same as before is a change only where its mode differs; a whiteout of nothing is none.
- Of a directory that is gone only the top is told, with how many entries go with it.
- What is neither file, directory nor link (a fifo) is told, and cannot be committed.
- At most `CHANGE_LIMIT` changes, and `PATHS_LIMIT_BYTES` of paths, for a session may lay directories within each other as deep as it
  likes; more is a `TooManyChanges`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from coworkd.model.calls_folders import EntryKind
from coworkd.workers.stage_compare import same_content
from coworkd.workers.stage_entries import MODE_BITS, above, all_above, is_whiteout, join, kind_of, walk_key
from coworkd.workers.stage_room import Stage

CHANGE_LIMIT = 1_000_000
PATHS_LIMIT_BYTES = 256 * 1024 * 1024


class TooManyChanges(Exception):
    """There are more changes than are looked at at once."""


class Change(Struct, kw_only=True):
    """One path that differs. `new` is what the session has there, `old` what the source has; None where there is nothing."""

    path: bytes
    new: os.stat_result | None
    old: os.stat_result | None
    only_mode: bool = False
    """The content is the same."""

    @property
    def entry(self) -> EntryKind:
        found = self.new or self.old
        assert found is not None
        return kind_of(found.st_mode)

    @property
    def was(self) -> EntryKind | None:
        """The kind before, where it is another one now."""
        if self.new is None or self.old is None or kind_of(self.old.st_mode) == self.entry:
            return None
        return kind_of(self.old.st_mode)


class Selection:
    """Which paths are meant: all, or some with what lies below them."""

    def __init__(self, paths: Iterable[bytes] | None) -> None:
        chosen = None if paths is None else frozenset(paths)
        self.paths = None if chosen is None or b"" in chosen else chosen
        self._leading = all_above(self.paths or ())

    def has(self, path: bytes) -> bool:
        if self.paths is None or path in self.paths:
            return True
        return any(top in self.paths for top in above(path))

    def leads_into(self, path: bytes) -> bool:
        """Whether something below the directory `path` may be meant."""
        return path in self._leading or self.has(path)


class _Directory(Struct):
    path: bytes
    shown: bool
    """Whether what the source has there is seen by the session where it has nothing of its own."""
    there: bool
    """Whether the source has a directory there."""


def find_changes(
    stage: Stage, selection: Selection, step: Callable[[bytes], None], limit: int = CHANGE_LIMIT
) -> list[Change]:
    """Every change that `selection` means, and the new directories that those lie in; in walk order.

    `step` is called with each path that is looked at. Raises `OSError`, `TooManyChanges`.
    """
    found: list[Change] = []
    paths_bytes = 0
    waiting = [_Directory(b"", True, True)]
    while waiting:
        directory = waiting.pop()
        for change, below in _look_into(stage, directory, selection, step):
            if change is not None:
                found.append(change)
                if len(found) > limit:
                    raise TooManyChanges(f"more than {limit} paths have changed")
                paths_bytes += len(change.path)
                if paths_bytes > PATHS_LIMIT_BYTES:
                    raise TooManyChanges("directories lie so deep within each other that their paths are too much")
            if below is not None:
                waiting.append(below)
    found.sort(key=lambda change: walk_key(change.path))
    return _meant(found, selection)


def _meant(found: list[Change], selection: Selection) -> list[Change]:
    """Those that are selected, and each change above them: without it there is no place for them."""
    if selection.paths is None:
        return found
    needed = all_above(change.path for change in found if selection.has(change.path))
    return [change for change in found if change.path in needed or selection.has(change.path)]


def _look_into(
    stage: Stage, directory: _Directory, selection: Selection, step: Callable[[bytes], None]
) -> Iterator[tuple[Change | None, _Directory | None]]:
    names = stage.upper.names(directory.path)
    for name in names:
        path = join(directory.path, name)
        step(path)
        new = stage.upper.look(path)
        if new is None or not selection.leads_into(path):
            continue
        old = stage.source.look(path) if directory.there else None
        if is_whiteout(new):
            yield (Change(path=path, new=None, old=old) if old is not None else None), None
            continue
        yield compare(stage, path, new, old, step), _below(stage, directory, path, new, old)
    if directory.there and not directory.shown:
        own = set(names)
        for name in stage.source.names(directory.path):
            path = join(directory.path, name)
            old = stage.source.look(path) if name not in own and selection.leads_into(path) else None
            if old is not None:
                yield Change(path=path, new=None, old=old), None


def _below(
    stage: Stage, directory: _Directory, path: bytes, new: os.stat_result, old: os.stat_result | None
) -> _Directory | None:
    if not stat.S_ISDIR(new.st_mode):
        return None
    there = old is not None and stat.S_ISDIR(old.st_mode)
    return _Directory(path, directory.shown and not (there and stage.is_opaque(path)), there)


def compare(
    stage: Stage, path: bytes, new: os.stat_result, old: os.stat_result | None, step: Callable[[bytes], None]
) -> Change | None:
    """What the entry that the session has at `path` changes; None where it is as in the source."""
    if old is None:
        return Change(path=path, new=new, old=None)
    kind = kind_of(new.st_mode)
    if kind != kind_of(old.st_mode):
        return Change(path=path, new=new, old=old)
    same_mode = new.st_mode & MODE_BITS == old.st_mode & MODE_BITS
    if kind == "file":
        if new.st_size != old.st_size or not _holds_same(stage, path, new.st_size, step):
            return Change(path=path, new=new, old=old)
    elif kind == "symlink":
        return None if stage.upper.link(path) == stage.source.link(path) else Change(path=path, new=new, old=old)
    elif kind == "other":
        return Change(path=path, new=new, old=old)
    return None if same_mode else Change(path=path, new=new, old=old, only_mode=True)


def _holds_same(stage: Stage, path: bytes, size: int, step: Callable[[bytes], None]) -> bool:
    one = stage.upper.open(path, os.O_RDONLY)
    try:
        other = stage.source.open(path, os.O_RDONLY)
        try:
            return same_content(one, other, size, step)
        finally:
            os.close(other)
    finally:
        os.close(one)
