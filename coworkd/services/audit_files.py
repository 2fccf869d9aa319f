"""The audit log on disk: one directory, one writer, blocking verbs.

Layout and names: `auditlog.rotation`. Rules
- The directory is 0700, every file 0600. An flock(2) on the directory keeps a second writer out; it ends with the
  process, so nothing is left to clean up after kill -9.
- `commit` returns only after fdatasync(2). Where a step fails, the file is cut back to what was durable before, so a
  record that was refused is not in the log; where the cut fails too, the next commit begins with it.
- Blocks for the records to come are allocated behind the end of the newest file: no full disk takes those. ENOSPC all the same frees
  the reserve, then whatever `more_room` gives, and tries again; the reserve is taken back when there is room for `RESERVE_ROOM` of it.
- At open a torn last line is cut off, and recorded. Complete lines that are no records are evidence: they stay, the log
  goes on in a new file that begins with `audit.damaged`, and `verify` goes on telling where.

It does not judge records, and is not thread-safe: `services.audit` makes one call at a time.

Sources: fsync(2), flock(2), posix_fallocate(3), fallocate(2) FALLOC_FL_KEEP_SIZE, open(2) O_NOFOLLOW.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from coworkd.auditlog.chain import FORMAT, LINE_LIMIT_BYTES, Broken, Head, append_record, check_line
from coworkd.auditlog.kinds import admit
from coworkd.auditlog.rotation import (
    RESERVE_NAME,
    RotationLimits,
    compose_name,
    log_files,
    parse_name,
    plan_drops,
)
from coworkd.model.errors import DiskFailed, InvalidState
from coworkd.services.audit_snapshot import Snapshot, find_end
from coworkd.system import file_calls

RESERVE_ROOM = 4
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskCalls:
    """The calls that a full or failing disk refuses, by their own names; tests hand in ones that do."""

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def posix_fallocate(self, fd: int, length: int) -> None:
        os.posix_fallocate(fd, 0, length)

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        """Blocks behind the end of the file, which stays where it is."""
        file_calls.fallocate(fd, file_calls.FALLOC_FL_KEEP_SIZE, offset, length)

    def free_bytes(self, fd: int) -> int:
        found = os.fstatvfs(fd)
        return found.f_bavail * found.f_frsize


class Entry(Struct, kw_only=True):
    """One record on its way: `fields` as `kinds.admit` returned them, `at` in epoch seconds."""

    at: float
    kind: str
    fields: Mapping[str, Any]


class AuditFiles:
    """The open log. `head` is the newest durable record; `problems` says, part by part, what is wrong all the same."""

    def __init__(
        self,
        directory: Path,
        *,
        boot_id: str,
        limits: RotationLimits,
        disk: DiskCalls | None = None,
        more_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """Lock `directory` (made where missing); `start` must follow. Raises `InvalidState`, `DiskFailed`.

        `more_room` gives up some of another reserve, and says whether there was any.
        """
        self._more_room = more_room
        self._ahead = 0
        self._path = directory
        self._boot = boot_id
        self._limits = limits
        self._disk = disk or DiskCalls()
        self.head = Head()
        self.problems: dict[str, str] = {}
        self._fd = -1
        self._name = ""
        self._size = 0
        self._dirty = False
        self._reserved = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed("opened", error) from error
        try:
            os.fchmod(self._directory, 0o700)
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._directory)
            raise InvalidState(
                f"the audit log in {directory} is written by another coworkd: stop it, or use another state directory",
                path=str(directory),
            ) from error
        except OSError as error:
            os.close(self._directory)
            raise self._failed("locked", error) from error

    def start(self, *, at: float, version: str) -> None:
        """Find the end of the chain, repair a torn write, record `audit.opened`. Raises `DiskFailed`."""
        try:
            notes = self._open_newest()
        except OSError as error:
            raise self._failed("opened", error) from error
        self._take_reserve()
        notes.append(("audit.opened", {"format": FORMAT, "version": version}))
        self.commit([Entry(at=at, kind=kind, fields=admit(kind, fields)) for kind, fields in notes])

    def close(self) -> None:
        """Close every descriptor; the lock ends with the directory's. Idempotent."""
        for fd in (self._fd, self._directory):
            if fd >= 0:
                os.close(fd)
        self._fd = self._directory = -1

    def snapshot(self) -> Snapshot:
        """The log of this moment, for a reader that goes on while more is written. Raises `DiskFailed`."""
        files: list[tuple[str, int, int]] = []
        try:
            for name in self._names():
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
                files.append((name, fd, self._size if name == self._name else os.fstat(fd).st_size))
        except OSError as error:
            Snapshot(head=self.head, files=tuple(files)).close()
            raise self._failed("read", error) from error
        return Snapshot(head=self.head, files=tuple(files))

    def commit(self, entries: Sequence[Entry]) -> None:
        """Append `entries` in order, durably: all of them, or none and `DiskFailed`."""
        at = entries[-1].at
        if self._size >= self._limits.file_bytes or "rotation" in self.problems:
            self._rotate(at)
        try:
            self._append(entries)
        except OSError as error:
            if error.errno not in _DISK_FULL or not (self._free_reserve() or self._more_room()):
                raise self._failed("written", error) from error
            reason = f"the disk of {self._path} is full: recording goes on from a reserve; free some space"
            self.problems["reserve"] = reason
            note = admit("audit.degraded", {"reason": reason})
            self._append_on_reserve([*entries, Entry(at=at, kind="audit.degraded", fields=note)])
        if self._limits.reserve_bytes and not self._reserved and self._room_again():
            self._take_reserve()

    def _append_on_reserve(self, entries: Sequence[Entry]) -> None:
        """Whoever filled the disk may take what was given up before we do: until it is written, or nothing is left to give."""
        while True:
            try:
                self._append(entries)
            except OSError as error:
                if error.errno not in _DISK_FULL or not self._more_room():
                    raise self._failed("written, nor on its reserve", error) from error
            else:
                return

    # -- the newest file ------------------------------------------------------------------------------------------

    def _append(self, entries: Sequence[Entry]) -> None:
        if self._dirty:
            self._cut_back()
        head = self.head
        lines: list[bytes] = []
        for entry in entries:
            line, head = append_record(head, entry.kind, entry.fields, at=entry.at, boot=self._boot)
            lines.append(line)
        data = b"".join(lines)
        self._dirty = True
        try:
            view = memoryview(data)
            while view:
                view = view[self._disk.write(self._fd, view) :]
            self._disk.fdatasync(self._fd)
        except OSError:
            self._cut_back_later()
            raise
        self._dirty = False
        self._size += len(data)
        self.head = head
        self._allocate_ahead()

    def _allocate_ahead(self) -> None:
        step = self._limits.reserve_bytes
        if step and self._size + step // 2 > self._ahead:
            with contextlib.suppress(
                OSError
            ):  # the disk is full, or cannot do it; what is there already is used up first
                self._disk.preallocate(self._fd, self._size, step)
                self._ahead = self._size + step

    def _cut_back(self) -> None:
        """Undo a write that failed. The cut makes the last page dirty again, so a later fdatasync writes it anew."""
        self._disk.ftruncate(self._fd, self._size)  # which gives up what was allocated ahead
        self._ahead = 0
        self._disk.fdatasync(self._fd)
        self._dirty = False
        self.problems.pop("write", None)

    def _cut_back_later(self) -> None:
        """Try it now, so that readers and a restart do not see what was refused; `_dirty` stays set where it fails."""
        try:
            self._cut_back()
        except OSError as error:
            self.problems["write"] = f"a failed write in {self._path} could not be undone: {error.strerror}"

    def _open_file(self, name: str) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._directory)
        os.fchmod(fd, 0o600)
        os.fsync(self._directory)
        return fd

    def _begin_file(self) -> None:
        name = compose_name(self.head.seq + 1)
        fd = self._open_file(name)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._name, self._size, self._ahead = fd, name, os.fstat(fd).st_size, 0

    def _names(self) -> list[str]:
        return log_files(os.listdir(self._directory))

    # -- opening --------------------------------------------------------------------------------------------------

    def _open_newest(self) -> list[tuple[str, dict[str, Any]]]:
        """Open the newest file at the end of the chain; return what has to be recorded about how it was found."""
        names = self._names()
        notes: list[tuple[str, dict[str, Any]]] = []
        if not names:
            self._begin_file()
            return notes
        self._name = names[-1]
        self._fd = self._open_file(self._name)
        size = os.fstat(self._fd).st_size
        end = find_end(self._fd, size)
        self._size = size - end.torn_bytes
        if end.torn_bytes:
            self._cut_back()
            notes.append(("audit.recovered", {"file": self._name, "bytes": end.torn_bytes}))
        self.head = end.head or self._head_of_earlier(names[:-1])
        if end.broken is not None:
            begun = parse_name(self._name) or 0
            notes.append(
                ("audit.damaged", {"file": self._name, "reason": end.broken, "after_seq": self.head.seq}),
            )
            self.problems["damage"] = f"{self._name} was changed: {end.broken}; run `coworkctl audit verify`"
            self.head = Head(seq=max(self.head.seq, begun), hash=self.head.hash)
            self._begin_file()
        return notes

    def _head_of_earlier(self, names: Sequence[str]) -> Head:
        """The head before a newest file that has no record yet, as a crash right after a rotation leaves it."""
        for name in reversed(names):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            try:
                end = find_end(fd, os.fstat(fd).st_size)
            finally:
                os.close(fd)
            if end.head is not None:
                return end.head
        return Head()

    # -- rotation and the reserve ---------------------------------------------------------------------------------

    def _rotate(self, at: float) -> None:
        """Begin a new file and drop what passes the bound; where the disk refuses, tell it and try again next time."""
        try:
            if self._size >= self._limits.file_bytes:
                self._begin_file()
            self._drop(at)
        except OSError as error:
            self.problems["rotation"] = f"the audit log in {self._path} cannot be rotated: {error.strerror}"
        else:
            self.problems.pop("rotation", None)

    def _drop(self, at: float) -> None:
        sizes = [(name, os.stat(name, dir_fd=self._directory).st_size) for name in self._names()]
        drops = plan_drops(sizes, self._limits.total_bytes)
        if not drops:
            return
        kept = sizes[len(drops)][0]
        fields = {"files": drops, "kept_seq": parse_name(kept), "kept_hash": self._first_hash(kept)}
        self._append([Entry(at=at, kind="audit.dropped", fields=admit("audit.dropped", fields))])
        for name in drops:
            os.unlink(name, dir_fd=self._directory)
        os.fsync(self._directory)

    def _first_hash(self, name: str) -> str:
        """The hash of a file's first record; empty where that is damaged, which `verify` then tells."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            line = os.pread(fd, LINE_LIMIT_BYTES, 0).partition(b"\n")[0] + b"\n"
            return check_line(line)[1]
        except Broken:
            return ""
        finally:
            os.close(fd)

    def _take_reserve(self) -> None:
        """Hold blocks back for the day the disk is full; without them the log still works, and it is told."""
        if not self._limits.reserve_bytes:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(RESERVE_NAME, flags, 0o600, dir_fd=self._directory)
            try:
                self._disk.posix_fallocate(fd, self._limits.reserve_bytes)
            finally:
                os.close(fd)
        except OSError as error:
            self.problems["reserve"] = f"no reserve for the audit log in {self._path}: {error.strerror}"
        else:
            self._reserved = True
            self.problems.pop("reserve", None)

    def _free_reserve(self) -> bool:
        """Give the reserve back to the file system; False where there is none to give."""
        self._reserved = False
        try:
            os.unlink(RESERVE_NAME, dir_fd=self._directory)
            os.fsync(self._directory)
        except OSError:
            return False
        return True

    def _room_again(self) -> bool:
        return self._disk.free_bytes(self._directory) >= RESERVE_ROOM * self._limits.reserve_bytes

    def _failed(self, done: str, error: OSError) -> DiskFailed:
        return DiskFailed(
            f"the audit log in {self._path} cannot be {done}: {error.strerror}; nothing is done without a record",
            path=str(self._path),
            errno=error.errno,
        )
