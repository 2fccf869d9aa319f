"""Watching by inotify(7), where fanotify cannot: every directory of a tree by itself, as many as there is room for.

Rules
- At most `DIRECTORIES` in all trees; what finds no room is counted, and not seen. New directories are watched as they come; what was
  made in one before that is told as made when it is found.
- Both halves of a rename that come one after the other are one; a half alone is a delete, or makes an entry.
- It does not say who: ancestries are empty.
- Watching is of a directory, wherever it is moved to: its path is known by its place below the one that it was found in.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from coworkd.model.folder import ChangeKind, FolderChange
from coworkd.model.watch import SeenChange
from coworkd.system import inotify
from coworkd.system.inotify import InotifyEvent
from coworkd.workers.watch_trees import Place, Tree, is_whiteout

READ_BYTES = 64 * 1024
DIRECTORIES = 8192
_DEPTH = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Directory:
    """One that is watched. `tops` are the trees that it is the top of."""

    def __init__(self, number: int, parent: _Directory | None, name: bytes) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.below: dict[bytes, _Directory] = {}


class _Watched:
    """One tree: its directories by number."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.directories: dict[int, _Directory] = {}
        self.unseen = 0

    def path(self, directory: _Directory) -> bytes:
        names = list[bytes]()
        at: _Directory | None = directory
        while at is not None and at.parent is not None:
            names.append(at.name)
            at = at.parent
        return b"/".join(reversed(names))


class InotifyTrees:
    """All trees that are watched in this way. Owns them, and the instance `fd`. Raises `OSError` where there is no inotify."""

    def __init__(self, limit: int = DIRECTORIES) -> None:
        self.fd = inotify.open_inotify()
        self._limit = limit
        self._trees: dict[int, _Watched] = {}
        self._users: dict[int, int] = {}
        """Directory → how many trees watch it."""
        self._moved: tuple[InotifyEvent, float] | None = None

    def add(self, tree: Tree) -> int:
        """Watch it; it is ours from now on. How many directories are not seen. Raises `OSError` where not even its top can be watched."""
        watched = _Watched(tree)
        top = self._watch(watched, None, b"", os.dup(tree.fd))
        self._trees[tree.watch] = watched
        if tree.only is None:
            for _ in self._walk(watched, top, tree.fd, 0):
                continue
        return watched.unseen

    def remove(self, watch: int) -> bool:
        """Whether it was one of ours."""
        watched = self._trees.pop(watch, None)
        if watched is None:
            return False
        for number in list(watched.directories):
            self._let_go(watched, number)
        watched.tree.close()
        return True

    @property
    def watches(self) -> tuple[int, ...]:
        return tuple(self._trees)

    def read(self) -> tuple[list[SeenChange], bool]:
        """What has happened, and whether something was missed. Empty where there is nothing."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return [], False
        seen: list[SeenChange] = []
        missed = False
        now = time.time()
        for event in inotify.parse_events(data):
            missed = missed or bool(event.mask & inotify.IN_Q_OVERFLOW)
            seen.extend(self._take(event, now))
        seen.extend(self._settle_move(None, now))
        return seen, missed

    def close(self) -> None:
        for watched in self._trees.values():
            watched.tree.close()
        os.close(self.fd)

    # -- events -------------------------------------------------------------------------------------------------

    def _take(self, event: InotifyEvent, now: float) -> Iterator[SeenChange]:
        if event.mask & inotify.IN_MOVED_TO and self._moved is not None and self._moved[0].cookie == event.cookie:
            (source, _), self._moved = self._moved, None
            yield from self._rename(source, event, now)
            return
        yield from self._settle_move(event, now)
        if event.mask & inotify.IN_MOVED_FROM:
            self._moved = event, now
            return
        for watched, directory in self._of(event.watch):
            yield from self._judge(watched, directory, event, now)
        if event.mask & inotify.IN_IGNORED:
            for watched, _ in self._of(event.watch):
                self._forget(watched, event.watch)
            self._users.pop(event.watch, None)

    def _settle_move(self, event: InotifyEvent | None, now: float) -> Iterator[SeenChange]:
        """What was moved away, and did not come in elsewhere, is gone."""
        if self._moved is None:
            return
        (source, at), self._moved = self._moved, None
        is_directory = bool(source.mask & inotify.IN_ISDIR)
        for watched, directory in self._of(source.watch):
            below = directory.below.pop(source.name, None)
            if below is not None:
                self._drop(watched, below)
            yield from self._told(watched, directory, "rmdir" if is_directory else "delete", source.name, at)

    def _rename(self, source: InotifyEvent, target: InotifyEvent, now: float) -> Iterator[SeenChange]:
        before = dict(self._of(source.watch))
        after = dict(self._of(target.watch))
        for watched in {**before, **after}:
            old, new = before.get(watched), after.get(watched)
            if old is None and new is not None:
                yield from self._judge(watched, new, target, now)
                continue
            if old is None:
                continue
            path = self._join(watched, old, source.name)
            moved = old.below.pop(source.name, None)
            if new is None:
                if moved is not None:
                    self._drop(watched, moved)
                kind: ChangeKind = "rmdir" if source.mask & inotify.IN_ISDIR else "delete"
                yield from self._told(watched, old, kind, source.name, now)
                continue
            if moved is not None:
                moved.parent, moved.name = new, target.name
                new.below[target.name] = moved
            to = self._join(watched, new, target.name)
            if path is not None and to is not None:
                yield _seen(watched.tree, "rename", path, now, to=to)

    def _judge(self, watched: _Watched, directory: _Directory, event: InotifyEvent, now: float) -> Iterator[SeenChange]:
        is_directory = bool(event.mask & inotify.IN_ISDIR)
        if event.mask & (inotify.IN_CREATE | inotify.IN_MOVED_TO):
            kind: ChangeKind = "mkdir" if is_directory else "create"
            if watched.tree.staged and not is_directory and self._is_whiteout(watched, directory, event.name):
                kind = "delete"
            yield from self._told(watched, directory, kind, event.name, now)
            if is_directory and watched.tree.only is None:
                for made, path in self._enter(watched, directory, event.name):
                    yield _seen(watched.tree, made, path, now)
        if event.mask & inotify.IN_ATTRIB and event.name:
            yield from self._told(watched, directory, "attributes", event.name, now)
        if event.mask & inotify.IN_CLOSE_WRITE:
            yield from self._told(watched, directory, "write", event.name, now)
        if event.mask & inotify.IN_DELETE:
            directory.below.pop(event.name, None)
            yield from self._told(watched, directory, "rmdir" if is_directory else "delete", event.name, now)

    def _told(
        self, watched: _Watched, directory: _Directory, kind: ChangeKind, name: bytes, now: float
    ) -> Iterator[SeenChange]:
        path = self._join(watched, directory, name)
        if path is not None:
            size = self._size(watched, path) if kind == "write" else -1
            yield _seen(watched.tree, kind, path, now, size=size)

    def _join(self, watched: _Watched, directory: _Directory, name: bytes) -> bytes | None:
        return Place(watched.tree, watched.path(directory)).join(name)

    def _size(self, watched: _Watched, path: bytes) -> int:
        try:
            return os.stat(path or watched.tree.only or b".", dir_fd=watched.tree.fd, follow_symlinks=False).st_size
        except OSError:
            return -1

    def _is_whiteout(self, watched: _Watched, directory: _Directory, name: bytes) -> bool:
        path = self._join(watched, directory, name)
        try:
            return path is not None and is_whiteout(os.stat(path, dir_fd=watched.tree.fd, follow_symlinks=False))
        except OSError:
            return False

    # -- directories --------------------------------------------------------------------------------------------

    def _of(self, number: int) -> list[tuple[_Watched, _Directory]]:
        return [
            (watched, watched.directories[number]) for watched in self._trees.values() if number in watched.directories
        ]

    def _watch(self, watched: _Watched, parent: _Directory | None, name: bytes, fd: int) -> _Directory:
        """Watch one more; `fd` is closed. Raises `OSError`."""
        try:
            number = inotify.add_watch(self.fd, fd)
        finally:
            os.close(fd)
        known = watched.directories.get(number)
        if known is None:
            self._users[number] = self._users.get(number, 0) + 1
            known = watched.directories[number] = _Directory(number, parent, name)
        elif known.parent is not None:
            known.parent.below.pop(known.name, None)
            known.parent, known.name = parent, name
        if parent is not None:
            parent.below[name] = known
        return known

    def _enter(self, watched: _Watched, parent: _Directory, name: bytes) -> Iterator[tuple[ChangeKind, bytes]]:
        """Watch a directory that is new, and tell what is in it already."""
        path = self._join(watched, parent, name)
        try:
            fd = os.open(path or b".", _DIRECTORY, dir_fd=watched.tree.fd)
        except OSError:
            return
        try:
            directory = self._one_more(watched, parent, name, fd)
            if directory is not None:
                yield from self._walk(watched, directory, fd, 0)
        finally:
            os.close(fd)

    def _one_more(self, watched: _Watched, parent: _Directory, name: bytes, fd: int) -> _Directory | None:
        if len(self._users) >= self._limit:
            watched.unseen += 1
            return None
        try:
            return self._watch(watched, parent, name, os.dup(fd))
        except OSError:
            watched.unseen += 1
            return None

    def _walk(
        self, watched: _Watched, directory: _Directory, fd: int, depth: int
    ) -> Iterator[tuple[ChangeKind, bytes]]:
        """Watch all below; what there is, as if it was made now."""
        try:
            with os.scandir(fd) as entries:
                found = [(os.fsencode(each.name), each.is_dir(follow_symlinks=False)) for each in entries]
        except OSError:
            return
        for name, is_directory in found:
            path = self._join(watched, directory, name)
            if path is not None:
                yield ("mkdir" if is_directory else "create"), path
            if not is_directory or depth >= _DEPTH:
                continue
            try:
                below_fd = os.open(name, _DIRECTORY, dir_fd=fd)
            except OSError:
                continue
            try:
                below = self._one_more(watched, directory, name, below_fd)
                if below is not None:
                    yield from self._walk(watched, below, below_fd, depth + 1)
            finally:
                os.close(below_fd)

    def _drop(self, watched: _Watched, directory: _Directory) -> None:
        """It is not of this tree any more, nor is what lies below."""
        pending = [directory]
        while pending:
            each = pending.pop()
            pending.extend(each.below.values())
            self._let_go(watched, each.number)

    def _let_go(self, watched: _Watched, number: int) -> None:
        if watched.directories.pop(number, None) is None:
            return
        self._users[number] = self._users.get(number, 1) - 1
        if self._users[number] <= 0:
            del self._users[number]
            with contextlib.suppress(OSError):  # it was deleted, and the kernel has let go of it already
                inotify.remove_watch(self.fd, number)

    def _forget(self, watched: _Watched, number: int) -> None:
        directory = watched.directories.pop(number, None)
        if directory is not None and directory.parent is not None:
            below = directory.parent.below
            if below.get(directory.name) is directory:
                del below[directory.name]


def _seen(tree: Tree, kind: ChangeKind, path: bytes, at: float, *, to: bytes = b"", size: int = -1) -> SeenChange:
    return SeenChange(watch=tree.watch, change=FolderChange(change=kind, path=path, to=to, size=size, at=at))
