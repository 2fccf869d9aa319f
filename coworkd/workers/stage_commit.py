"""A commit: changes of a stage, made in its source, so that a crash at any point leaves each path old or new.

Order: what an interrupted commit left is cleared → the intent is written (which directories may hold unfinished files) → directories are
made, top down → files and links, in batches → what was deleted goes, bottom up → all of it is durable → the intent is cleared.

Rules
- Everything new is made whole under a name of our own in the directory where it belongs (`UNFINISHED_PREFIX`), given its owner and mode,
  made durable, and renamed into place. What is there already is exchanged with it, looked at once more, and only then removed.
- Right before it is put in place the source is looked at once more: what is not as it was judged is a conflict, not overwritten.
- What is made belongs to whom the directory belongs that it is made in; what is replaced keeps its owner. Set-id bits are never given.
- A path that fails is told with its reason, and the others go on. What lies in a directory that could not be made is `skipped`.

Sources: rename(2), syncfs(2), fsync(2): "Calling fsync() does not necessarily ensure that the entry in the directory … has reached disk".
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from coworkd.model.calls_folders import CommitState
from coworkd.model.stage import UNFINISHED_PREFIX, PathResult
from coworkd.system.beneath import DIRECTORY, RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2, syncfs
from coworkd.workers.stage_changes import Change
from coworkd.workers.stage_conflicts import CHANGED, MADE, conflict_of, judge
from coworkd.workers.stage_copy import copy_attributes, copy_content, copy_user_attributes
from coworkd.workers.stage_entries import (
    MODE_BITS,
    has_steady_inodes,
    ident_of,
    is_same,
    join,
    look,
    name_of,
    parent_of,
)
from coworkd.workers.stage_remove import Stays, is_untouched, remove_all, remove_entry, remove_unfinished
from coworkd.workers.stage_room import Stage

BATCH_FILES = 4096
_OPEN_FILES = 256
"""Of a batch on a share, where each file is made durable by itself."""
BATCH_BYTES = 256 * 1024 * 1024
_FEW = 4
"""So many files are made durable one by one; more of them together, with all else of their file system."""
_NO_FLAG = frozenset((errno.EINVAL, errno.ENOSYS))
_NO_LINK = frozenset((errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK))

Step = Callable[[bytes], None]


class Conflict(Exception):
    """The source is not as it was judged; the text says what happened to it."""


class _LeftAside(OSError):
    """What had to make room could not be brought back: it lies under the unfinished name, and must not go with that."""


class _Written(Struct):
    """A change that waits under its unfinished name to be put in place."""

    change: Change
    name: bytes
    fd: int
    """Of a file, until it is durable; -1."""


class Commit:
    """One commit of an open stage, which nobody sees meanwhile."""

    def __init__(self, stage: Stage, *, overwrite: bool, step: Step) -> None:
        """`step` is called before each step, with the path."""
        self._stage = stage
        self._overwrite = overwrite
        self._step = step
        self._results: dict[bytes, PathResult] = {}
        self._prefix = UNFINISHED_PREFIX + stage.about.id.encode() + b"-"
        self._token = self._prefix + secrets.token_hex(4).encode() + b"-"
        self._count = 0
        self._batch: list[_Written] = []
        self._batch_bytes = 0
        self._touched: set[bytes] = set()
        self._steady = has_steady_inodes(os.fstat(stage.source.root_fd))
        self._batch_files = BATCH_FILES if self._steady else min(BATCH_FILES, _OPEN_FILES)

    def run(self, changes: list[Change]) -> list[PathResult]:
        """Make `changes`, which are in walk order; what became of each. Raises `OSError` where nothing can be done at all."""
        self.clear_unfinished()
        wanted = [change for change in changes if self._may(change)]
        self._stage.write_intent(sorted({parent_of(change.path) for change in wanted}))
        for change in wanted:
            if change.new is not None and stat.S_ISDIR(change.new.st_mode):
                self._attempt(change, self._make_directory)
        for change in wanted:
            if change.new is not None and not stat.S_ISDIR(change.new.st_mode):
                self._attempt(change, self._write)
                if len(self._batch) >= self._batch_files or self._batch_bytes >= BATCH_BYTES:
                    self._place_batch()
        self._place_batch()
        for change in reversed(wanted):
            if change.new is None:
                self._attempt(change, self._delete)
        self._make_durable()
        self._stage.since.sync()
        self._stage.clear_intent()
        return [self._results[change.path] for change in changes if change.path in self._results]

    def clear_unfinished(self) -> None:
        """Remove what an earlier commit of this stage has left unfinished. Raises `OSError`."""
        directories = self._stage.read_intent()
        if directories == ():
            return
        remove_unfinished(self._stage.source, directories, self._prefix)
        self._step(b"")
        self._stage.clear_intent()

    # -- one change -----------------------------------------------------------------------------------------------

    def _may(self, change: Change) -> bool:
        self._step(change.path)
        if change.new is not None and change.entry == "other":
            self._tell(change, "failed", "it is neither a file, a directory nor a link, and stays behind")
            return False
        if self._overwrite:
            return True
        try:
            reason = conflict_of(self._stage, change)
        except OSError as error:
            self._tell(change, "failed", _words(error))
            return False
        if reason is not None:
            self._tell(change, "conflict", reason)
        return reason is None

    def _attempt(self, change: Change, do: Callable[[Change], None]) -> None:
        self._step(change.path)
        # Of what a directory that is new holds every entry is a change, so the one right above it tells.
        refused = self._results.get(parent_of(change.path))
        if refused is not None and refused.state != "committed":
            self._tell(change, "skipped", "the directory that it lies in was not committed")
            return
        try:
            do(change)
        except (Conflict, Stays) as error:
            self._tell(change, "conflict", str(error))
        except OSError as error:
            self._tell(change, "failed", _words(error))

    def _tell(self, change: Change, state: CommitState, reason: str = "") -> None:
        self._results[change.path] = PathResult(path=change.path, state=state, reason=reason)

    def _done(self, change: Change, directory: int) -> None:
        """It is in place: remember what the source has there now."""
        now = look(name_of(change.path), directory)
        self._stage.since.note(change.path, None if now is None else ident_of(now))
        self._touched.add(parent_of(change.path))
        self._tell(change, "committed")

    def _make_directory(self, change: Change) -> None:
        assert change.new is not None
        directory = self._stage.source.directory(parent_of(change.path))
        mode = change.new.st_mode & MODE_BITS
        if change.only_mode:
            self._change_mode(change, directory, mode)
            return
        name = self._fresh_name()
        os.mkdir(name, 0o700, dir_fd=directory)
        try:
            self._furnish(change, directory, name, mode)
        except OSError:
            remove_entry(directory, name)
            raise
        self._step(change.path)
        self._place(change, name)

    def _furnish(self, change: Change, directory: int, name: bytes, mode: int) -> None:
        made = os.open(name, DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            copy_user_attributes(self._stage.upper.directory(change.path), made)
            uid, gid = self._owner(change, directory)
            os.fchown(made, uid, gid)
            os.fchmod(made, mode | os.fstat(made).st_mode & stat.S_ISGID)  # as the directory it lies in hands it down
        finally:
            os.close(made)

    def _change_mode(self, change: Change, directory: int, mode: int) -> None:
        assert change.old is not None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name_of(change.path), flags, dir_fd=directory)
        try:
            if not self._overwrite and not is_same(ident_of(change.old), ident_of(os.fstat(fd))):
                raise Conflict(CHANGED)
            if stat.S_ISDIR(change.old.st_mode):
                mode |= os.fstat(fd).st_mode & (stat.S_ISGID | stat.S_ISVTX)  # the user's own, and no danger there
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        self._done(change, directory)

    def _write(self, change: Change) -> None:
        """Make the new file or link under an unfinished name; it waits for its batch."""
        assert change.new is not None
        directory = self._stage.source.directory(parent_of(change.path))
        if change.only_mode and change.old is not None and change.old.st_nlink == 1:  # its other names keep theirs
            self._change_mode(change, directory, change.new.st_mode & MODE_BITS)
            return
        name = self._fresh_name()
        try:
            fd = self._write_link(change, directory, name) if change.entry == "symlink" else -1
            if change.entry == "file":
                fd = self._write_file(change, directory, name)
        except OSError:
            remove_entry(directory, name)
            raise
        if self._steady and fd >= 0 and len(self._batch) >= _FEW:  # all of these are made durable together
            os.close(fd)
            fd = -1
        self._batch.append(_Written(change=change, name=name, fd=fd))
        self._batch_bytes += change.new.st_blocks * 512

    def _write_link(self, change: Change, directory: int, name: bytes) -> int:
        os.symlink(self._stage.upper.link(change.path), name, dir_fd=directory)
        uid, gid = self._owner(change, directory)
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        return -1

    def _write_file(self, change: Change, directory: int, name: bytes) -> int:
        source = self._stage.upper.open(change.path, os.O_RDONLY)
        try:
            found = os.fstat(source)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.ESTALE, "it is no plain file any more")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                copy_content(source, fd, found.st_size, self._step)
                if not is_untouched(found, os.fstat(source)):
                    raise OSError(errno.ESTALE, "a command that still has the folder was writing to it; try again")
                uid, gid = self._owner(change, directory)
                copy_attributes(source, fd, found, uid=uid, gid=gid)
            except BaseException:
                os.close(fd)
                raise
            return fd
        finally:
            os.close(source)

    def _delete(self, change: Change) -> None:
        assert change.old is not None

        def may_go(path: bytes, found: os.stat_result) -> str | None:
            self._step(path)
            return None if self._overwrite else judge(self._stage, path, found)

        def gone(path: bytes) -> None:
            self._stage.since.note(path, None)

        remove_all(self._stage.source, change.path, change.old, may_go=may_go, gone=gone)
        self._done(change, self._stage.source.directory(parent_of(change.path)))

    # -- putting in place -----------------------------------------------------------------------------------------

    def _place_batch(self) -> None:
        """Make what was written durable, and rename each into place."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        together = self._steady and len(batch) > _FEW
        fault: OSError | None = None
        if together:
            try:
                syncfs(self._stage.source.root_fd)
            except OSError as error:
                fault = error
        written = [each for each in batch if self._finish(each, fault, sync=not together)]
        for each in written:
            self._attempt(each.change, partial(self._place, name=each.name))

    def _finish(self, written: _Written, fault: OSError | None, *, sync: bool) -> bool:
        """Whether it is durable, as far as that is this file's to say."""
        try:
            if fault is not None:
                raise fault
            if sync and written.fd >= 0:
                os.fsync(written.fd)
        except OSError as error:
            self._tell(written.change, "failed", _words(error))
            return False
        finally:
            if written.fd >= 0:
                os.close(written.fd)
        return True

    def _place(self, change: Change, name: bytes) -> None:
        """Rename `name` to where it belongs, if that is as it was judged; else it goes."""
        directory = self._stage.source.directory(parent_of(change.path))
        try:
            now = look(name_of(change.path), directory)
            if not self._overwrite and not _is_as_judged(change.old, now):
                raise Conflict(CHANGED)
            if now is None:
                _rename_to_nothing(directory, name, name_of(change.path))
            else:
                self._exchange(change, directory, name, now)
        except _LeftAside:
            raise
        except (OSError, Conflict, Stays):
            remove_entry(self._stage.source.directory(parent_of(change.path)), name)
            raise
        self._done(change, self._stage.source.directory(parent_of(change.path)))

    def _exchange(self, change: Change, directory: int, name: bytes, now: os.stat_result) -> None:
        """It takes another's place: what was there goes under the unfinished name, is looked at once more, and goes. What somebody has
        done to it in the meantime is not thrown away: back with it.
        """
        if stat.S_ISDIR(now.st_mode):
            if change.entry == "directory":
                raise Conflict(MADE)
            self._judge_below(change.path, change.path)
            directory = self._stage.source.directory(parent_of(change.path))
        final = name_of(change.path)
        try:
            renameat2(directory, name, directory, final, RENAME_EXCHANGE)
        except OSError as error:
            if error.errno not in _NO_FLAG or stat.S_ISDIR(now.st_mode) or change.entry == "directory":
                raise
            os.rename(name, final, src_dir_fd=directory, dst_dir_fd=directory)
            return
        self._stage.source.forget(change.path)
        try:
            self._step(change.path)
            self._put_away(change, name, now)
        except (OSError, Conflict, Stays):
            self._stage.source.let_go()
            directory = self._stage.source.directory(parent_of(change.path))
            try:
                renameat2(directory, name, directory, final, RENAME_EXCHANGE)
            except OSError as error:
                shown = os.fsdecode(name)
                raise _LeftAside(
                    error.errno, f"{error.strerror}; what was there before lies beside it as {shown}"
                ) from error
            raise

    def _put_away(self, change: Change, name: bytes, judged: os.stat_result) -> None:
        """Remove what came out of its place, if it is still as it was judged."""
        aside = join(parent_of(change.path), name)
        found = self._stage.source.look(aside)
        if found is None:
            return
        if not self._overwrite and not is_untouched(judged, found):
            raise Conflict(CHANGED)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=self._stage.source.directory(parent_of(change.path)))
            return
        self._judge_below(aside, change.path)

        def may_go(path: bytes, seen: os.stat_result) -> str | None:
            if self._overwrite or path == aside:
                return None
            return judge(self._stage, change.path + path[len(aside) :], seen)

        def gone(path: bytes) -> None:
            self._stage.since.note(change.path + path[len(aside) :], None)

        remove_all(self._stage.source, aside, found, may_go=may_go, gone=gone)
        self._stage.source.let_go()

    def _judge_below(self, directory: bytes, path: bytes) -> None:
        """Raises `Conflict` for what is in `directory`, which is or was `path`, and `OSError` where not all of it can be seen: another
        file system that is mounted in it goes for no change.
        """
        for each, found in self._stage.source.below(directory):
            reason = None if self._overwrite else judge(self._stage, path + each[len(directory) :], found)
            if reason is not None:
                raise Conflict(reason)

    def _owner(self, change: Change, directory: int) -> tuple[int, int]:
        found = change.old or os.fstat(directory)
        return found.st_uid, found.st_gid

    def _fresh_name(self) -> bytes:
        self._count += 1
        return self._token + b"%d" % self._count

    def _make_durable(self) -> None:
        self._step(b"")
        if self._steady:
            syncfs(self._stage.source.root_fd)
            return
        for path in sorted(self._touched):
            try:
                os.fsync(self._stage.source.directory(path))
            except FileNotFoundError:  # it went with what was deleted
                continue


def _is_as_judged(judged: os.stat_result | None, now: os.stat_result | None) -> bool:
    if judged is None or now is None:
        return judged is now
    return is_same(ident_of(judged), ident_of(now))


def _rename_to_nothing(directory: int, name: bytes, final: bytes) -> None:
    try:
        renameat2(directory, name, directory, final, RENAME_NOREPLACE)
    except FileExistsError as error:
        raise Conflict(CHANGED) from error
    except OSError as error:
        if error.errno not in _NO_FLAG:
            raise
        _link_to_nothing(directory, name, final)


def _link_to_nothing(directory: int, name: bytes, final: bytes) -> None:
    """Where the file system knows no such flag: a second name is never made over another. A directory cannot have two, and takes the
    place of nothing but an empty one.
    """
    try:
        os.link(name, final, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError as error:
        raise Conflict(CHANGED) from error
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        os.rename(name, final, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def _words(error: OSError) -> str:
    return error.strerror or str(error)
