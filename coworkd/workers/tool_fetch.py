"""One tool, from the share to a directory of coworkd's: hashed while it is copied, judged when it is whole, and durable.

Rules
- The source is a plain file: the tool itself, or a tar or tar.gz of it, told by its first bytes. Its SHA-256 is of these bytes as they
  are read, once, so that what was hashed is what was written.
- Bounded by bytes read, bytes written and entries; a small file that unpacks without end is stopped at the bound.
- Afterwards all is root's, with mode 0755 or 0644; set-id bits, devices and fifos are none of it. Symbolic links lead nowhere but into
  the same tree, as the kernel resolves them (RESOLVE_BENEATH).

Sources: openat2(2), RFC 1952 section 2.2 (gzip members), POSIX pax.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator

from coworkd.archive.entry import ArchiveError
from coworkd.archive.unpack import Unpack
from coworkd.model.tool import EXECUTABLES_TOLD, FetchTool, ToolAnswer, ToolFetched, ToolRefusal, ToolRefused
from coworkd.system.beneath import DIRECTORY, open_beneath, syncfs
from coworkd.system.openat2 import RESOLVE_BENEATH, openat2

_PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_USTAR_AT = 257
_TAR_SUFFIXES = (b".tar", b".tar.gz", b".tgz")
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_OUT = frozenset((errno.EXDEV, errno.ELOOP))
_CONTRADICTION = frozenset((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG))
"""What entries of one archive can be to one another, or a name to the disk; no fault of the disk's."""


class _Refuse(Exception):
    def __init__(self, why: ToolRefusal, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.why, self.message, self.number = why, message, number


def fetch(request: FetchTool) -> ToolAnswer:
    """Do it, and say what came of it; never raises for what source or disk are like."""
    try:
        return _fetch(request)
    except _Refuse as error:
        return ToolRefused(id=request.id, why=error.why, message=error.message, errno=error.number)
    except ArchiveError as error:
        where = "" if error.path is None else f" ({os.fsdecode(error.path)!a})"
        return ToolRefused(id=request.id, why="bad_archive", message=f"{error.message}{where}")
    except OSError as error:
        return ToolRefused(id=request.id, why="disk", message=error.strerror or str(error), errno=error.errno)


def _fetch(request: FetchTool) -> ToolFetched:
    incoming = os.open(request.incoming, DIRECTORY | os.O_CLOEXEC)
    try:
        source = _open_source(request)
        try:
            pieces = _Pieces(source, request.limit_bytes)
            try:
                _write(request, incoming, pieces)
            except (ArchiveError, _Refuse):
                pieces.drain()  # a file that was changed on its way is that, before it is no archive
                _compare(pieces, request)
                raise
        finally:
            os.close(source)
        _compare(pieces, request)
        size, entries, executables = _settle(incoming, request.limit_bytes, request.limit_entries)
        syncfs(incoming)
    finally:
        os.close(incoming)
    return ToolFetched(id=request.id, size_bytes=size, entries=entries, executables=executables)


def _compare(pieces: _Pieces, request: FetchTool) -> None:
    if pieces.digest() != request.sha256:
        raise _Refuse("mismatch", f"its SHA-256 is {pieces.digest()}, not {request.sha256}")


def _open_source(request: FetchTool) -> int:
    try:
        root = os.open(request.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Not blocking: what lies there may be a fifo that nobody writes to.
            found = open_beneath(root, request.source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        finally:
            os.close(root)
    except OSError as error:
        if error.errno in _OUT:
            raise _Refuse("not_a_file", "it leads out of the share or through a link; name the file itself") from error
        why: ToolRefusal = "not_found" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "unreadable"
        raise _Refuse(why, error.strerror or str(error), error.errno) from error
    status = os.fstat(found)
    if not stat.S_ISREG(status.st_mode):
        os.close(found)
        raise _Refuse("not_a_file", "it is no plain file; give a directory as a tar of it")
    if status.st_size > request.limit_bytes:
        os.close(found)
        raise _Refuse("too_big", f"it has {status.st_size} bytes; at most {request.limit_bytes} are taken")
    return found


class _Pieces:
    """The source's bytes, hashed on their way."""

    def __init__(self, fd: int, limit_bytes: int) -> None:
        self._fd = fd
        self._left = limit_bytes
        self._hash = hashlib.sha256()
        self.head = self._read()

    def __iter__(self) -> Iterator[bytes]:
        piece = self.head
        while piece:
            yield piece
            piece = self._read()

    def drain(self) -> None:
        """Read the rest for its digest."""
        while self._read():
            pass

    def digest(self) -> str:
        """Of all that was read."""
        return self._hash.hexdigest()

    def _read(self) -> bytes:
        try:
            piece = os.read(self._fd, _PIECE_BYTES)
        except OSError as error:
            raise _Refuse("unreadable", error.strerror or str(error), error.errno) from error
        self._left -= len(piece)
        if self._left < 0:
            raise _Refuse("too_big", "it grew beyond what is taken while it was read")
        self._hash.update(piece)
        return piece


def _write(request: FetchTool, incoming: int, pieces: _Pieces) -> None:
    head = pieces.head
    if head.startswith(_ZSTD):
        raise _Refuse("bad_archive", "it is compressed by zstd, which is not taken: tar or tar.gz are")
    if head.startswith(_GZIP):
        _unpack(request, incoming, _gunzip(pieces))
    elif head[_USTAR_AT : _USTAR_AT + 5] == b"ustar" or request.source.endswith(_TAR_SUFFIXES):
        _unpack(request, incoming, iter(pieces))
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(request.file_name, flags, 0o755, dir_fd=incoming)
        with open(fd, "wb", buffering=0) as file:
            for piece in pieces:
                _write_all(file.write, piece)


def _write_all(write: Callable[[memoryview], int | None], piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[write(rest) or 0 :]


def _unpack(request: FetchTool, incoming: int, pieces: Iterator[bytes]) -> None:
    written = 0
    with Unpack(incoming, entries_limit=request.limit_entries) as unpack:
        for piece in pieces:
            written += len(piece)
            if written > request.limit_bytes:
                raise _Refuse("too_big", f"it unpacks to more than {request.limit_bytes} bytes")
            try:
                unpack.receive_data(piece)
            except OSError as error:
                if error.errno not in _CONTRADICTION:
                    raise
                where = "" if error.filename is None else f" ({os.fsdecode(error.filename)!a})"
                raise _Refuse("bad_archive", f"an entry cannot be there: {error.strerror}{where}") from error
        unpack.finish()


def _gunzip(pieces: _Pieces) -> Iterator[bytes]:
    """What the members of a gzip file hold, in pieces that are bounded whatever they are compressed to."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            data = piece
            while data:
                yield inflate.decompress(data, _PIECE_BYTES)
                data = inflate.unconsumed_tail
                if inflate.eof:
                    data = inflate.unused_data
                    if data:
                        inflate = zlib.decompressobj(wbits=31)
            # Output can be left in there without any input.
            while not inflate.eof and (more := inflate.decompress(b"", _PIECE_BYTES)):
                yield more
    except zlib.error as error:
        raise _Refuse("bad_archive", f"its compression is damaged: {error}") from error
    if not inflate.eof:
        raise _Refuse("bad_archive", "it is cut off")


def _settle(top: int, limit_bytes: int, limit_entries: int) -> tuple[int, int, tuple[bytes, ...]]:
    """Give everything its mode; size, number of entries and what can be executed. Nobody else writes here."""
    size = entries = 0
    executables: list[bytes] = []
    directories = [b""]
    while directories:
        path = directories.pop()
        directory = open_beneath(top, path, DIRECTORY)
        try:
            os.fchmod(directory, 0o755)
            os.fchown(directory, 0, 0)
            for name in sorted(os.fsencode(name) for name in os.listdir(directory)):
                entries += 1
                below = b"/".join((path, name)) if path else name
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    directories.append(below)
                elif stat.S_ISLNK(status.st_mode):
                    _judge_link(top, below)
                else:
                    size += _settle_file(directory, name, below, status)
                    if status.st_mode & 0o111:
                        executables.append(below)
        finally:
            os.close(directory)
    if entries > limit_entries or size > limit_bytes:
        raise _Refuse("too_big", f"it has {entries} entries and {size} bytes")
    executables.sort(key=lambda path: (path.count(b"/"), path))
    return size, entries, tuple(executables[:EXECUTABLES_TOLD])


def _settle_file(directory: int, name: bytes, path: bytes, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode) or status.st_mode & _SPECIAL:
        raise _Refuse(
            "bad_archive", f"{os.fsdecode(path)!a} is neither a file, a directory nor a link, or has set-id bits"
        )
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, 0o755 if status.st_mode & 0o111 else 0o644)
    finally:
        os.close(fd)
    return status.st_size


def _judge_link(top: int, path: bytes) -> None:
    """As the kernel goes: links through links too. One that leads to nothing is left, if it stays inside on its way."""
    try:
        os.close(openat2(top, path, os.O_PATH, resolve=RESOLVE_BENEATH))
    except OSError as error:
        if error.errno in _OUT:
            raise _Refuse("bad_archive", f"the link {os.fsdecode(path)!a} leads out of it, or in a circle") from error
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
