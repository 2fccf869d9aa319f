"""An archive that somebody else has made, as files below a directory: entry by entry, and nowhere else.

Rules
- No entry is absolute, has `..`, or is reached through a symbolic link: directories are opened one name at a time, without following.
- A file is written without a name, or under one of its own where the system has no such files, and takes its place when it is whole: over
  a symbolic link too and never through one. Of what was being written when it ends badly nothing stays; entries before it do.
- Devices, fifos and what else is neither file, directory nor link are refused, and so is a hard link to anything but a file that the same
  archive brought. Set-user-id, set-group-id and sticky bits are dropped, owners are not heeded.
- Directories get their mode and time at the end, when all is in them.
- A run of zeros in a file becomes a hole.

Sources: openat(2), open(2) O_TMPFILE, linkat(2), rename(2), POSIX pax.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from types import TracebackType
from typing import NamedTuple

from coworkd.archive.entry import ArchiveError, Entry, split_path
from coworkd.archive.reader import ArchiveEnd, Data, Reader

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
REMEMBERED = 100_000
"""Files that a hard link can lead to, and directories that get their mode and time: the first so many of an archive."""
REMEMBERED_BYTES = 16 * 1024 * 1024
"""About as much of their paths: an archive can have a hundred thousand that are thousands of names deep."""
_HOLE_BYTES = 64 * 1024
_PAGE_BYTES = 4096
_ZEROS = memoryview(bytes(_HOLE_BYTES))
TEMPORARY = b".coworkd-"
"""How the names begin that files have while they are written."""


_OWN_FDS = "/proc/self/fd"
_UNNAMED = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC if hasattr(os, "O_TMPFILE") and os.path.isdir(_OWN_FDS) else 0
_NOT_UNNAMED = frozenset([errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS])


class _Settled(NamedTuple):
    """What a directory gets at the end."""

    mode: int
    mtime_ns: int


class NewFile:
    """A file that takes its place when it is whole. Write to `fd`, then `put`; `close` in any case."""

    def __init__(self, parent: int, name: bytes) -> None:
        """`parent` stays the caller's: a copy is taken. Raises `OSError`."""
        self.name = name
        self.temporary: bytes | None = None
        self.fd = self._open(parent)
        self.parent = os.dup(parent)

    def _open(self, parent: int) -> int:
        try:
            if _UNNAMED:
                return os.open(".", _UNNAMED, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno not in _NOT_UNNAMED:
                raise
        self.temporary = temporary_name()
        return os.open(self.temporary, _CREATE, 0o600, dir_fd=parent)

    def put(self) -> None:
        """Into its place. Raises `OSError`."""
        if self.temporary is None:
            try:
                self._link(self.name)
            except FileExistsError:
                self.temporary = temporary_name()
                self._link(self.temporary)
            else:
                return
        temporary, self.temporary = self.temporary, None
        _rename(self.parent, temporary, self.name)

    def close(self) -> None:
        """Nothing stays of what was not put."""
        os.close(self.fd)
        if self.temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary, dir_fd=self.parent)
        os.close(self.parent)

    def _link(self, name: bytes) -> None:
        os.link(f"{_OWN_FDS}/{self.fd}", os.fsdecode(name), dst_dir_fd=self.parent, follow_symlinks=True)


class _Growing(NewFile):
    """The file that is being written."""

    def __init__(self, parent: int, name: bytes, entry: Entry) -> None:
        super().__init__(parent, name)
        self.entry = entry


class Unpack:
    """One archive on its way below `top`, a descriptor that stays the caller's. Use it in a `with`."""

    def __init__(self, top: int, *, entries_limit: int) -> None:
        self.entries = 0
        self.bytes = 0
        self._top = top
        self._entries_limit = entries_limit
        self._reader = Reader()
        self._over = False
        self._growing: _Growing | None = None
        self._files: set[bytes] = set()
        self._directories: dict[bytes, _Settled] = {}
        self._file_room = self._directory_room = REMEMBERED_BYTES
        self._parent: tuple[tuple[bytes, ...], int] | None = None
        """Where the last entry lay: the next one mostly does too."""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Write what came. Raises `ArchiveError`, `OSError` with the entry's path; nothing more is taken after either."""
        self._reader.receive_data(data)
        while (event := self._reader.next_event()) is not None:
            if isinstance(event, ArchiveEnd):
                self._over = True
            elif isinstance(event, Data):
                self._write(event)
            else:
                self._begin(event)

    def finish(self) -> None:
        """That was all. Raises `ArchiveError` where it is not, `OSError`."""
        self._reader.check_end()
        for path, settled in reversed(self._directories.items()):
            with _Naming(path):
                self._settle_directory(split_path(path), settled)

    def __enter__(self) -> Unpack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.close()
        self._forget_parent()

    # -- entries ------------------------------------------------------------------------------------------------

    def _begin(self, entry: Entry) -> None:
        self.entries += 1
        if self.entries > self._entries_limit:
            raise ArchiveError(f"the archive has more than {self._entries_limit} entries", entry.path)
        names = split_path(entry.path)
        with _Naming(entry.path):
            if entry.kind == "directory":
                self._make_directory(names, entry)
            elif not names:
                raise ArchiveError("an entry other than a directory stands for the archive's top", entry.path)
            elif entry.kind == "file":
                self._growing = _Growing(self._open_parent(names[:-1]), names[-1], entry)
                if not entry.size:
                    self._end_file(self._growing)
            elif entry.kind == "symlink":
                self._make_link(names, entry)
            elif entry.kind == "hardlink":
                self._make_hard_link(names, entry)
            else:
                raise ArchiveError("an entry is a device or a fifo, and is not taken", entry.path)

    def _make_directory(self, names: tuple[bytes, ...], entry: Entry) -> None:
        if names:
            parent = self._open_parent(names[:-1])
            with contextlib.suppress(FileExistsError):
                os.mkdir(names[-1], 0o700 | entry.mode & 0o777, dir_fd=parent)
            os.close(os.open(names[-1], DIRECTORY, dir_fd=parent))
        path, settled = b"/".join(names), _Settled(entry.mode & 0o777, entry.mtime_ns)
        if len(self._directories) < REMEMBERED and self._directory_room > 0:
            self._directory_room -= len(path)
            self._directories[path] = settled
        else:
            self._settle_directory(names, settled)

    def _make_link(self, names: tuple[bytes, ...], entry: Entry) -> None:
        if not entry.target:
            raise ArchiveError("a symbolic link leads nowhere", entry.path)
        parent, temporary = self._open_parent(names[:-1]), temporary_name()
        os.symlink(entry.target, temporary, dir_fd=parent)
        with contextlib.suppress(OSError, NotImplementedError):
            os.utime(temporary, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        _rename(parent, temporary, names[-1])

    def _make_hard_link(self, names: tuple[bytes, ...], entry: Entry) -> None:
        target = split_path(entry.target)
        if b"/".join(target) not in self._files:
            raise ArchiveError("a hard link leads to no file that this archive brought before", entry.path)
        source = os.dup(self._open_parent(target[:-1]))
        try:
            parent, temporary = self._open_parent(names[:-1]), temporary_name()
            os.link(target[-1], temporary, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            _rename(parent, temporary, names[-1])
            # rename(2) does nothing where both are links to one file.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
        finally:
            os.close(source)

    # -- a file's bytes -----------------------------------------------------------------------------------------

    def _write(self, data: Data) -> None:
        growing = self._growing
        assert growing is not None
        with _Naming(growing.entry.path):
            write_sparsely(growing.fd, data.data)
            self.bytes += len(data.data)
            if data.last:
                self._end_file(growing)

    def _end_file(self, growing: _Growing) -> None:
        entry = growing.entry
        os.ftruncate(growing.fd, entry.size)
        os.fchmod(growing.fd, entry.mode & 0o777)
        os.utime(growing.fd, ns=(entry.mtime_ns, entry.mtime_ns))
        growing.put()
        self._growing = None
        growing.close()
        if len(self._files) < REMEMBERED and self._file_room > 0:
            path = b"/".join(split_path(entry.path))
            self._file_room -= len(path)
            self._files.add(path)

    # -- directories --------------------------------------------------------------------------------------------

    def _open_parent(self, names: tuple[bytes, ...]) -> int:
        return self._open_directory(names, make=True)

    def _open_directory(self, names: tuple[bytes, ...], *, make: bool) -> int:
        """From where the last one lay, where it lies below that; ours until the next is asked for."""
        known, above = self._parent if self._parent is not None else ((), self._top)
        if known == names and self._parent is not None:
            return above
        if names[: len(known)] != known:
            known, above = (), self._top
        opened = self._descend(above, names[len(known) :], make=make)
        self._forget_parent()
        self._parent = (names, opened)
        return opened

    def _descend(self, above: int, names: tuple[bytes, ...], *, make: bool) -> int:
        """Raises `OSError`; `above` stays."""
        opened = os.open(".", DIRECTORY, dir_fd=above)
        try:
            for name in names:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=opened)
                below = os.open(name, DIRECTORY, dir_fd=opened)
                os.close(opened)
                opened = below
        except BaseException:
            os.close(opened)
            raise
        return opened

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _settle_directory(self, names: tuple[bytes, ...], settled: _Settled) -> None:
        above = self._open_directory(names[:-1], make=False)
        opened = os.open(names[-1] if names else b".", DIRECTORY, dir_fd=above)
        try:
            os.fchmod(opened, settled.mode)
            os.utime(opened, ns=(settled.mtime_ns, settled.mtime_ns))
        except PermissionError:
            # A directory that was there and is another's keeps what it has.
            if os.fstat(opened).st_uid == os.geteuid():
                raise
        finally:
            os.close(opened)


def temporary_name() -> bytes:
    """A name that nothing has."""
    return TEMPORARY + secrets.token_hex(8).encode()


def write_sparsely(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the position; zeros are passed over, and the caller ends with ftruncate(2). Raises `OSError`."""
    view = memoryview(data)
    while view:
        piece = view[:_HOLE_BYTES]
        if len(piece) >= _PAGE_BYTES and piece == _ZEROS[: len(piece)]:
            os.lseek(fd, len(piece), os.SEEK_CUR)
            view = view[len(piece) :]
        else:
            view = view[os.write(fd, piece) :]


def _rename(parent: int, temporary: bytes, name: bytes) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise


class _Naming:
    """An `OSError` on its way out gets the entry's path: names relative to a descriptor tell nobody anything."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ArchiveError(
                    "an entry lies behind a symbolic link or a file, not below a directory", self._path
                ) from None
            raise OSError(error.errno, error.strerror, os.fsdecode(self._path)) from None
