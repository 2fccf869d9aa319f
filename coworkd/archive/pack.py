"""A directory, or one entry of it, as the bytes of an archive, as they are read.

Rules
- Symbolic links are told, never followed. Names of one directory are in order, a directory stands before what is in it.
- Every file is opened without waiting and looked at before it is read. Hard links become files of their own.
- What cannot be read, and what has no place in an archive (sockets, fifos, devices), is left out and counted. A file that gets shorter
  while it is read is filled up with zeros and counted too, one that grows is cut: the archive stays whole whatever happens.
- What is held is the names of the directories on the way.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from coworkd.archive.entry import PATH_LIMIT_BYTES, Entry
from coworkd.archive.writer import END, compose_entry, padding
from coworkd.system.descent import Descent

CHUNK_BYTES = 256 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DENIED = frozenset([errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV])
"""What befalls one entry, and says nothing of the next."""


class Pack:
    """One archive to be made. `check` is asked of every descriptor before it is read from, and raises `OSError` to refuse it."""

    def __init__(self, *, entries_limit: int, check: Callable[[int], None] | None = None) -> None:
        self.entries = 0
        self.omitted = 0
        self.left_out: list[tuple[bytes, str]] = []
        """The first of what was left out or is not as it was, and why."""
        self._entries_limit = entries_limit
        self._check = check

    def chunks(self, directory: int, name: bytes | None, told_as: bytes) -> Iterator[bytes]:
        """The archive of `name` in `directory`, or of all that is in `directory` where it is None.

        `told_as` is the path that it has in the archive; empty for the top itself. Raises `OSError` where reading fails.
        """
        if name is None or stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            with Descent(directory) as place:
                if name is not None:
                    place.enter(name)
                yield from self._tree(place, told_as)
        else:
            yield from self._leaf(directory, name, told_as)
        yield END

    def _tree(self, place: Descent, told_as: bytes) -> Iterator[bytes]:
        yield from self._directory(place.fd, told_as)
        paths, waiting = [told_as], [self._names(place.fd, told_as)]
        while waiting:
            if not waiting[-1]:
                waiting.pop()
                paths.pop()
                if waiting:
                    place.leave()
                continue
            name = waiting[-1].pop()
            path = paths[-1] + b"/" + name if paths[-1] else name
            if self._enter(place, name, path):
                yield from self._directory(place.fd, path)
                paths.append(path)
                waiting.append(self._names(place.fd, path))
            else:
                yield from self._leaf(place.fd, name, path)

    def _enter(self, place: Descent, name: bytes, path: bytes) -> bool:
        """Whether `name` was a directory and could be entered; one that could not is for `_leaf` to tell."""
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=place.fd, follow_symlinks=False).st_mode):
                return False
            if len(path) >= PATH_LIMIT_BYTES:
                return False
            place.enter(name)
        except OSError as error:
            if error.errno not in _DENIED:
                raise
            return False
        return True

    def _names(self, directory: int, path: bytes) -> list[bytes]:
        """The last one first."""
        try:
            self._ask(directory)
            # The listing reads from a description of its own: an fd's position is left alone.
            return sorted(map(os.fsencode, os.listdir(directory)), reverse=True)
        except OSError as error:
            self._leave_out(path, error.strerror or str(error))
            return []

    def _directory(self, directory: int, path: bytes) -> Iterator[bytes]:
        seen = os.fstat(directory)
        yield self._tell(
            Entry(path=path or b".", kind="directory", mode=seen.st_mode & 0o777, mtime_ns=seen.st_mtime_ns)
        )

    def _leaf(self, directory: int, name: bytes, path: bytes) -> Iterator[bytes]:
        try:
            seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(seen.st_mode):
                target = os.readlink(name, dir_fd=directory)
                yield self._tell(Entry(path=path, kind="symlink", mode=0o777, mtime_ns=seen.st_mtime_ns, target=target))
                return
            if not stat.S_ISREG(seen.st_mode):
                what = (
                    "a directory that cannot be entered" if stat.S_ISDIR(seen.st_mode) else "neither file nor directory"
                )
                self._leave_out(path, what)
                return
            opened = os.open(name, _READ, dir_fd=directory)
        except OSError as error:
            if error.errno not in _DENIED:
                raise
            self._leave_out(path, error.strerror or str(error))
            return
        try:
            yield from self._file(opened, path)
        finally:
            os.close(opened)

    def _file(self, opened: int, path: bytes) -> Iterator[bytes]:
        seen = os.fstat(opened)
        try:
            self._ask(opened)
        except OSError as error:
            self._leave_out(path, error.strerror or str(error))
            return
        if not stat.S_ISREG(seen.st_mode):
            self._leave_out(path, "it changed while it was looked at")
            return
        size = seen.st_size
        yield self._tell(Entry(path=path, kind="file", mode=seen.st_mode & 0o777, size=size, mtime_ns=seen.st_mtime_ns))
        left = size
        while left:
            data = os.read(opened, min(CHUNK_BYTES, left))
            if not data:
                self._leave_out(path, f"it has become {left} bytes shorter; zeros stand for them")
                yield from _zeros(left)
                break
            left -= len(data)
            yield data
        if fill := padding(size):
            yield fill

    def _tell(self, entry: Entry) -> bytes:
        self.entries += 1
        if self.entries > self._entries_limit:
            raise OSError(errno.E2BIG, f"there are more than {self._entries_limit} entries", os.fsdecode(entry.path))
        return compose_entry(entry)

    def _ask(self, fd: int) -> None:
        if self._check is not None:
            self._check(fd)

    def _leave_out(self, path: bytes, why: str) -> None:
        self.omitted += 1
        if len(self.left_out) < 16:
            self.left_out.append((path, why))


def _zeros(count: int) -> Iterator[bytes]:
    while count:
        piece = min(CHUNK_BYTES, count)
        count -= piece
        yield bytes(piece)
