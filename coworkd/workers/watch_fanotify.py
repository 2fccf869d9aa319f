"""Watching by fanotify(7): one mark for each file system, and of all that is changed there what lies in a tree.

Rules
- Who did it is looked up at once, and remembered for a moment: most commands live for less than it takes to ask coworkd.
- Where a directory lies is remembered too, at most `DIRECTORIES` of them, until any directory is renamed.
- An event may tell of several changes to one entry: they are told in the order in which they can have happened.
- A rename out of a tree is a delete, one into it makes an entry.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from coworkd.model.folder import ChangeKind, FolderChange
from coworkd.model.watch import SeenChange
from coworkd.system import fanotify
from coworkd.system.fanotify import Entry, FanotifyEvent, Handle
from coworkd.system.process_parents import read_ancestry
from coworkd.workers.watch_trees import Place, Tree, is_whiteout, path_of

READ_BYTES = 64 * 1024
DIRECTORIES = 65_536
_ANCESTRIES = 4096
_ANCESTRY_S = 1.0
_GONE_S = 10.0
"""For how long it is known who a process was that has ended: less than it takes until another has its pid."""


class FanotifyTrees:
    """All trees that are watched in this way. Owns them, and the group `fd`. Raises `OSError` where there is no fanotify."""

    def __init__(
        self,
        *,
        ancestry: Callable[[int], tuple[int, ...]] = read_ancestry,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fd = fanotify.open_fanotify()
        self._ancestry = ancestry
        self._monotonic = monotonic
        self._trees: dict[int, Tree] = {}
        self._file_systems: dict[bytes, list[Tree]] = {}
        self._places: OrderedDict[Handle, tuple[Place, ...]] = OrderedDict()
        self._ancestries: OrderedDict[int, tuple[tuple[int, ...], float]] = OrderedDict()

    def add(self, tree: Tree) -> None:
        """Watch it; it is ours from now on. Raises `OSError` where its file system cannot be marked: it is the caller's still."""
        fanotify.mark_file_system(self.fd, tree.fd)
        self._trees[tree.watch] = tree
        self._file_systems.setdefault(fanotify.file_system_id(tree.fd), []).append(tree)
        self._places.clear()

    def remove(self, watch: int) -> bool:
        """Whether it was one of ours."""
        tree = self._trees.pop(watch, None)
        if tree is None:
            return False
        self._places.clear()
        for fsid, trees in list(self._file_systems.items()):
            if tree in trees:
                trees.remove(tree)
                if not trees:
                    del self._file_systems[fsid]
                    fanotify.mark_file_system(self.fd, tree.fd, remove=True)
        tree.close()
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
        for event in fanotify.parse_events(data):
            missed = missed or bool(event.mask & fanotify.FAN_Q_OVERFLOW)
            seen.extend(self._judge(event, now))
        return seen, missed

    def close(self) -> None:
        for tree in self._trees.values():
            tree.close()
        os.close(self.fd)

    def _judge(self, event: FanotifyEvent, now: float) -> Iterator[SeenChange]:
        if event.entry is None:
            return
        if event.mask & fanotify.FAN_RENAME and event.to is not None:
            yield from self._judge_rename(event.entry, event.to, event, now)
            return
        for place in self._look(event.entry.directory):
            path = place.join(event.entry.name)
            if path is not None:
                for change, size in self._changes(event, place, event.entry):
                    yield self._seen(place, change, path, event.pid, now, size=size)

    def _judge_rename(self, old: Entry, new: Entry, event: FanotifyEvent, now: float) -> Iterator[SeenChange]:
        before = {place.tree: place.join(old.name) for place in self._look(old.directory)}
        after = {place.tree: place.join(new.name) for place in self._look(new.directory)}
        is_directory = bool(event.mask & fanotify.FAN_ONDIR)
        for tree in {**before, **after}:
            source, target = before.get(tree), after.get(tree)
            place = Place(tree, b"")
            if source is not None and target is not None:
                yield self._seen(place, "rename", source, event.pid, now, to=target)
            elif source is not None:
                yield self._seen(place, "rmdir" if is_directory else "delete", source, event.pid, now)
            elif target is not None:
                made = self._made(new, tree, is_directory=is_directory)
                yield self._seen(place, made, target, event.pid, now)
        if is_directory:
            self._places.clear()

    def _changes(self, event: FanotifyEvent, place: Place, entry: Entry) -> Iterator[tuple[ChangeKind, int]]:
        """The changes in one mask, with the size that was written."""
        is_directory = bool(event.mask & fanotify.FAN_ONDIR)
        if event.mask & fanotify.FAN_CREATE:
            yield self._made(entry, place.tree, is_directory=is_directory), -1
        if event.mask & fanotify.FAN_ATTRIB and entry.name != b".":
            yield "attributes", -1
        if event.mask & fanotify.FAN_CLOSE_WRITE:
            found = self._stat(entry)
            yield "write", found.st_size if found is not None else -1
        if event.mask & fanotify.FAN_DELETE:
            yield ("rmdir" if is_directory else "delete"), -1

    def _made(self, entry: Entry, tree: Tree, *, is_directory: bool) -> ChangeKind:
        if is_directory:
            return "mkdir"
        if tree.staged:
            found = self._stat(entry)
            if found is not None and is_whiteout(found):
                return "delete"
        return "create"

    def _stat(self, entry: Entry) -> os.stat_result | None:
        trees = self._file_systems.get(entry.directory.fsid)
        if not trees:
            return None
        try:
            fd = fanotify.open_handle(trees[0].fd, entry.directory)
        except OSError:
            return None
        try:
            return os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        finally:
            os.close(fd)

    def _look(self, directory: Handle) -> tuple[Place, ...]:
        """Where a directory lies: in no tree, in one, or in several."""
        known = self._places.get(directory)
        if known is not None:
            return known
        if not self._places:
            for tree in self._trees.values():
                tree.look()
        trees = self._file_systems.get(directory.fsid, [])
        paths: dict[int, bytes] = {}
        for tree in trees:
            if tree.mount not in paths:
                try:
                    paths[tree.mount] = _path_of_handle(tree.fd, directory)
                except OSError:  # it is gone: nobody can say where it was
                    return ()
        places = tuple(place for tree in trees if (place := tree.place(paths[tree.mount])) is not None)
        self._places[directory] = places
        if len(self._places) > DIRECTORIES:
            self._places.popitem(last=False)
        return places

    def _seen(
        self, place: Place, change: ChangeKind, path: bytes, pid: int, now: float, *, to: bytes = b"", size: int = -1
    ) -> SeenChange:
        told = FolderChange(change=change, path=path, to=to, size=size, pid=pid, at=now)
        return SeenChange(watch=place.tree.watch, change=told, ancestry=self._who(pid))

    def _who(self, pid: int) -> tuple[int, ...]:
        known = self._ancestries.get(pid)
        if known is not None and self._monotonic() - known[1] < _ANCESTRY_S:
            return known[0]
        found = self._ancestry(pid)
        if not found and known is not None and self._monotonic() - known[1] < _GONE_S:
            return known[0]
        self._ancestries.pop(pid, None)
        if found:
            self._ancestries[pid] = found, self._monotonic()
            if len(self._ancestries) > _ANCESTRIES:
                self._ancestries.popitem(last=False)
        return found


def _path_of_handle(mount_fd: int, directory: Handle) -> bytes:
    fd = fanotify.open_handle(mount_fd, directory)
    try:
        return path_of(fd)
    finally:
        os.close(fd)
