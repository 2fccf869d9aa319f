"""Taking changes out of a stage's upper directory: those that the source has by now, and those that are given up.

Rules
- Nobody sees the overlay meanwhile.
- What goes is renamed, whole, out of `upper`, and removed later (`empty_trash`): at no moment is an opaque directory left half empty,
  which would read as a deletion of what it hides, and nobody waits for very many files to be removed.
- A path below an opaque directory is given up by making that directory transparent first: a whiteout for each entry that it hid, and
  its inner directories opaque in their turn. All of that changes nothing of what is seen, so it may end anywhere.
- Before anything goes, what may stay forgets which entry of the source it was copied from (`overlay.origin`): overlayfs takes two names
  of one origin for one file, and a session that wrote to the one that comes into view again would write to the other.

Sources: kernel, filesystems/overlayfs, "whiteouts and opaque directories"; mknod(2): a device 0/0 needs no privilege since Linux 5.8.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable

from coworkd.system.beneath import DIRECTORY, RENAME_EXCHANGE, renameat2
from coworkd.system.remove_tree import remove_tree_at
from coworkd.workers.stage_changes import Change
from coworkd.workers.stage_entries import above, all_above, ident_of, is_same, is_whiteout, join, name_of, parent_of
from coworkd.workers.stage_room import Stage

Step = Callable[[bytes], None]
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class Trash:
    """Where upper entries go: `filling.TOKEN` beside `upper`, which becomes `trash.TOKEN` with `close`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._token = secrets.token_hex(8)
        self._fd = -1
        self._count = 0

    def take(self, path: bytes) -> bool:
        """Take the upper entry `path` away, with all in it; whether it was there. Raises `OSError`."""
        upper = self._stage.upper
        found = upper.look(path)
        if found is None:
            return False
        try:
            trash = self._open()
            os.rename(name_of(path), self._fresh(), src_dir_fd=upper.directory(parent_of(path)), dst_dir_fd=trash)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._remove_here(path, found)
        if stat.S_ISDIR(found.st_mode):
            upper.let_go()
        return True

    def _remove_here(self, path: bytes, found: os.stat_result) -> None:
        """Where the disk has no room for a directory's block. What goes hides nothing that is to stay hidden, so it may be made transparent
        first; then it may go piece by piece.
        """
        upper = self._stage.upper
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name_of(path), dir_fd=upper.directory(parent_of(path)))
            return
        inner = [below for below, each in upper.below(path) if stat.S_ISDIR(each.st_mode)]
        for each in (path, *inner):
            if self._stage.is_opaque(each):
                self._stage.forget_opaque(each)
        upper.let_go()
        remove_tree_at(upper.directory(parent_of(path)), name_of(path))

    def take_all(self) -> None:
        """Put an empty upper directory, with the same mode and owner, in the place of the one there is."""
        try:
            self._exchange_all()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            for name in self._stage.upper.names(b""):
                self.take(name)

    def _exchange_all(self) -> None:
        stage = self._stage
        found = os.fstat(stage.upper.root_fd)
        fresh = self._fresh()
        trash = self._open()
        os.mkdir(fresh, 0o700, dir_fd=trash)
        os.chown(fresh, found.st_uid, found.st_gid, dir_fd=trash, follow_symlinks=False)
        os.chmod(fresh, stat.S_IMODE(found.st_mode), dir_fd=trash)
        renameat2(stage.fd, b"upper", trash, fresh, RENAME_EXCHANGE)
        os.fsync(stage.fd)

    def close(self) -> None:
        """Nothing more goes there. Raises `OSError`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _give_up(self._stage.fd, f"filling.{self._token}")

    def _open(self) -> int:
        if self._fd < 0:
            name = f"filling.{self._token}"
            os.mkdir(name, 0o700, dir_fd=self._stage.fd)
            self._fd = os.open(name, DIRECTORY | os.O_CLOEXEC, dir_fd=self._stage.fd)
        return self._fd

    def _fresh(self) -> bytes:
        self._count += 1
        return b"%d" % self._count


def find_trash(stage_fd: int) -> bool:
    """Whether there is any to be emptied; what an interrupted commit or discard was filling counts from now on. Raises `OSError`."""
    names = os.listdir(stage_fd)
    for name in names:
        if name.startswith("filling."):
            _give_up(stage_fd, name)
    return any(name.startswith(("trash.", "filling.")) for name in names)


def empty_trash(stage_fd: int, step: Step) -> None:
    """Remove it, while anything else goes on. Raises `OSError`; the next call goes on from there."""
    for name in os.listdir(stage_fd):
        if name.startswith("trash."):
            step(b"")
            remove_tree_at(stage_fd, os.fsencode(name))


def _give_up(stage_fd: int, filling: str) -> None:
    os.rename(filling, f"trash.{filling.partition('.')[2]}", src_dir_fd=stage_fd, dst_dir_fd=stage_fd)


def clear_settled(stage: Stage, unsettled: Iterable[bytes], step: Step) -> None:
    """Take out of `upper` all that the source has as well: everything but the paths of `unsettled`, and what those lie in.

    What an opaque directory holds stays while anything below it is unsettled. Raises `OSError`.
    """
    _part_from_source(stage)
    keep = frozenset(unsettled)
    leading = all_above(keep)
    trash = Trash(stage)
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for name in stage.upper.names(directory):
            path = join(directory, name)
            if path in leading:
                if not stage.is_opaque(path):
                    waiting.append(path)
            elif path not in keep:
                step(path)
                _expect_as_is(stage, path)
                trash.take(path)
            elif _is_directory(stage, path) and not stage.is_opaque(path):
                waiting.append(path)
    stage.since.sync()
    trash.close()


def _part_from_source(stage: Stage) -> None:
    for path, found in stage.upper.below(b""):
        if not stat.S_ISDIR(found.st_mode) and not is_whiteout(found):
            stage.forget_origin(path)


def _expect_as_is(stage: Stage, path: bytes) -> None:
    """From now on the session sees the source's entries: what they are now is what it has seen."""
    entries = [path]
    found = stage.upper.look(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        entries += [below for below, _ in stage.upper.below(path)]
    for each in entries:
        now = stage.source.look(each)
        was = stage.was(each)
        ident = None if now is None else ident_of(now)
        if isinstance(was, str) or (was is None) != (ident is None) or (was and ident and not is_same(was, ident)):
            stage.since.note(each, ident)


def _is_directory(stage: Stage, path: bytes) -> bool:
    found = stage.upper.look(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def give_up(stage: Stage, changes: Iterable[Change], step: Step) -> int:
    """Drop these changes, so that the session sees what the source has; how many. Raises `OSError`."""
    _part_from_source(stage)
    trash = Trash(stage)
    count = 0
    for change in changes:
        step(change.path)
        for top in reversed(list(above(change.path))):
            if stage.is_opaque(top) and _is_directory_of_source(stage, top):
                _make_transparent(stage, top)
        trash.take(change.path)
        count += 1
    trash.close()
    return count


def give_up_all(stage: Stage) -> None:
    """Drop whatever there is. Raises `OSError`."""
    trash = Trash(stage)
    trash.take_all()
    trash.close()


def _is_directory_of_source(stage: Stage, path: bytes) -> bool:
    found = stage.source.look(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _make_transparent(stage: Stage, path: bytes) -> None:
    own = set(stage.upper.names(path))
    for name in stage.source.names(path):
        inner = join(path, name)
        if name not in own:
            directory = stage.upper.directory(path)
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
        elif _is_directory(stage, inner) and _is_directory_of_source(stage, inner):
            stage.make_opaque(inner)
    stage.forget_opaque(path)
