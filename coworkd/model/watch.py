"""The words between coworkd and its `watch` worker, which sees what is changed in folders that have no file system of their own.

Rules
- `WatchTree` is answered by `Watching` or `NotWatched`, `UnwatchTree` by `Unwatched`; of a watch that is not known any more too.
- `Seen` comes unasked, in the order things happened in one file system. `ancestry` is who did it and the processes above, by pid of the
  guest's first pid namespace; empty where that was gone already, or where the kernel does not say.
- Everybody's changes are told, the host's own included: who has a right to be told is coworkd's to see.
- `Missed` says that changes went by unseen; how many the kernel does not count.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.folder import FolderChange

SeenBy = Literal["fanotify", "inotify"]


class WatchTree(Struct, frozen=True, kw_only=True, tag="watch_tree"):
    """Tell what is changed below `path`, a directory, or in it, a file. `staged`: it is an upper layer, where deletes leave whiteouts."""

    id: int
    watch: int
    path: bytes
    staged: bool = False


class UnwatchTree(Struct, frozen=True, kw_only=True, tag="unwatch_tree"):
    id: int
    watch: int


class Watching(Struct, frozen=True, kw_only=True, tag="watching"):
    """`inotify` does not say who it was, and sees no more than so many directories: `unseen` is how many are not."""

    id: int
    by: SeenBy
    unseen: int = 0


class NotWatched(Struct, frozen=True, kw_only=True, tag="not_watched"):
    id: int
    errno: int | None
    message: str


class Unwatched(Struct, frozen=True, kw_only=True, tag="unwatched"):
    id: int


class SeenChange(Struct, frozen=True, kw_only=True, array_like=True):
    watch: int
    change: FolderChange
    ancestry: tuple[int, ...] = ()


class Seen(Struct, frozen=True, kw_only=True, tag="seen"):
    changes: tuple[SeenChange, ...]


class Missed(Struct, frozen=True, kw_only=True, tag="missed"):
    watches: tuple[int, ...]


ToWatcher = WatchTree | UnwatchTree
FromWatcher = Watching | NotWatched | Unwatched | Seen | Missed
