"""`coworkctl cp [-r] SRC DST`: files and trees into a session and out of it, one of the two named `SESSION:PATH`.

Rules
- As cp(1): into a directory that is there it copies under the source's own name; a directory needs `-r`. `-` is standard input or output.
- Permission bits and times of change are kept. A file takes its place whole, by a rename, on either side.
- What comes from a session is not trusted: nothing is written outside of DST or through a symbolic link below it, and a link in a file's
  place is replaced (`archive.unpack`).
- What could not be copied is told, and the status is 1; what could be stays.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from coworkd.archive.entry import ArchiveError
from coworkd.archive.pack import CHUNK_BYTES, Pack
from coworkd.archive.unpack import NewFile, Unpack, write_sparsely
from coworkd.cli.control_copy_progress import Progress
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_relay import write_whole
from coworkd.client.sync import Client
from coworkd.client.transfer import Download
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState, NotFound
from coworkd.model.names import OsBytes

ENTRIES_LIMIT = 1_000_000
_REMOTE = re.compile(r"([a-z][a-z0-9-]{0,31}):(.*)\Z", re.DOTALL)
_TIME_LIMIT_NS = 2**62
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Remote(NamedTuple):
    """`SESSION:PATH`."""

    session: str
    path: bytes


def copy(args: argparse.Namespace) -> int:
    """Copy; the status."""
    source, target = parse_side(args.source), parse_side(args.target)
    shown = sys.stderr.isatty() and not args.quiet and not args.json
    progress = Progress(sys.stderr if shown else None)
    try:
        with open_client(args) as client:
            if isinstance(target, Remote) and not isinstance(source, Remote):
                size = upload(client, source, target, recursive=args.recursive, progress=progress)
            elif isinstance(source, Remote) and not isinstance(target, Remote):
                size = download(client, source, target, recursive=args.recursive, progress=progress)
            else:
                raise InvalidParams("exactly one of SRC and DST is SESSION:PATH (a file here: ./NAME)", key="source")
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        raise InvalidState(f"{where}{error.strerror or error}", errno=error.errno) from error
    except ArchiveError as error:
        raise InvalidState(f"what the session sent is not taken: {_named(error)}", stage="archive") from error
    finally:
        progress.end()
    if args.json:
        print(dump({"bytes": size}))
    return 0


def parse_side(word: str) -> Remote | bytes:
    """`SESSION:PATH`, or a path here: one with a slash before its colon, or without a session's name there."""
    found = _REMOTE.match(word)
    return Remote(found[1], os.fsencode(found[2]) or b".") if found else os.fsencode(word)


# -- into a session ------------------------------------------------------------------------------------------------


def upload(client: Client, source: bytes, target: Remote, *, recursive: bool, progress: Progress) -> int:
    """Copy a file, a tree or standard input into a session; the bytes that went. Raises `CoworkError`, `OSError`."""
    if source == b"-":
        _refuse_missing_directory(target)
        pieces = _read_all(sys.stdin.fileno())
        return client.upload(target.session, target.path, progress.through(pieces, None))
    seen = os.stat(source)
    if stat.S_ISDIR(seen.st_mode):
        return _upload_tree(client, source, target, recursive=recursive, progress=progress)
    path = _inside(client, target, base_name(source))
    if path == target.path:
        _refuse_missing_directory(target)
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise InvalidParams(f"{os.fsdecode(source)} is neither a file nor a directory", key="source")
        return client.upload(
            target.session,
            path,
            progress.through(_read_all(fd), seen.st_size),
            mode=seen.st_mode & 0o777,
            mtime_ns=max(0, seen.st_mtime_ns),
            size=seen.st_size,
        )
    finally:
        os.close(fd)


def _upload_tree(client: Client, source: bytes, target: Remote, *, recursive: bool, progress: Progress) -> int:
    if not recursive:
        raise InvalidParams(
            f"{os.fsdecode(source)} is a directory: add -r to copy it with all that is in it", key="source"
        )
    path = _inside(client, target, base_name(source))
    pack = Pack(entries_limit=ENTRIES_LIMIT)
    directory = os.open(source, _DIRECTORY)
    try:
        size = client.upload(target.session, path, progress.through(pack.chunks(directory, None, b""), None), tar=True)
    finally:
        os.close(directory)
    if pack.omitted:
        name, why = pack.left_out[0]
        raise InvalidState(
            f"{pack.omitted} of it could not be copied, the rest is there; the first: {os.fsdecode(name)}: {why}",
            stage="left_out",
            omitted=pack.omitted,
        )
    return size


def _inside(client: Client, target: Remote, name: bytes) -> bytes:
    """Where it goes: below a directory that is there, else the path itself."""
    if not name or not _is_remote_directory(client, target):
        return target.path
    return target.path.rstrip(b"/") + b"/" + name


def _refuse_missing_directory(target: Remote) -> None:
    """A file does not become what is called a directory. Raises `InvalidState`."""
    if target.path.endswith(b"/"):
        raise InvalidState(
            f"{os.fsdecode(target.path)} does not name a file: make the directory first, or name a file in it",
            key="target",
        )


def _is_remote_directory(client: Client, side: Remote) -> bool:
    """Whether a directory is there, also behind a symbolic link."""
    try:
        return (
            client.file_stat(session=side.session, path=OsBytes(side.path.rstrip(b"/") + b"/.")).stat.kind
            == "directory"
        )
    except NotFound:
        client.session_get(session=side.session)  # else it is the session that is not there
        return False
    except InvalidState:
        return False


# -- out of a session ----------------------------------------------------------------------------------------------


def download(client: Client, source: Remote, target: bytes, *, recursive: bool, progress: Progress) -> int:
    """Copy a file or a tree out of a session; the bytes that came. Raises `CoworkError`, `OSError`, `ArchiveError`."""
    if _is_remote_directory(client, source):
        if not recursive or target == b"-":
            remedy = (
                "only a file can go to standard output"
                if target == b"-"
                else "add -r to copy it with all that is in it"
            )
            raise InvalidParams(f"{os.fsdecode(source.path)} is a directory: {remedy}", key="source")
        return _download_tree(client, source, target, progress)
    with client.download(source.session, source.path) as incoming:
        pieces = progress.through(incoming, incoming.size)
        if target == b"-":
            return sum(_written(sys.stdout.fileno(), piece) for piece in pieces)
        return _download_file(incoming, pieces, _here(target, base_name(source.path)))


def _written(fd: int, piece: bytes) -> int:
    write_whole(fd, piece)
    return len(piece)


def _download_file(incoming: Download, pieces: Iterable[bytes], path: bytes) -> int:
    directory, name = os.path.split(path)
    with _opened(directory or b".", _DIRECTORY) as parent:
        mode = stat.S_IFDIR if name in (b"", b".", b"..") else _mode_of(parent, name)
        if stat.S_ISDIR(mode):
            raise InvalidState(f"{os.fsdecode(path)} is a directory: name a file", key="target")
        if not stat.S_ISREG(mode):  # it would be replaced, and root may replace /dev/null
            raise InvalidState(f"{os.fsdecode(path)} is no plain file; standard output is called -", key="target")
        with contextlib.closing(NewFile(parent, name)) as file:
            size = 0
            for piece in pieces:
                write_sparsely(file.fd, piece)
                size += len(piece)
            os.ftruncate(file.fd, size)
            os.fchmod(file.fd, 0o644 if incoming.mode is None else incoming.mode & 0o777)
            if incoming.mtime_ns is not None:
                mtime_ns = max(-_TIME_LIMIT_NS, min(incoming.mtime_ns, _TIME_LIMIT_NS))
                os.utime(file.fd, ns=(mtime_ns, mtime_ns))
            file.put()
        return size


def _download_tree(client: Client, source: Remote, target: bytes, progress: Progress) -> int:
    path = _here(target, base_name(source.path))
    with client.download(source.session, source.path, tar=True) as incoming, _opened_tree(path) as top:
        lacking: CoworkError | None = None
        with Unpack(top, entries_limit=ENTRIES_LIMIT) as unpack:
            try:
                for piece in progress.through(incoming, None):
                    unpack.receive_data(piece)
            except InvalidState as error:
                if error.details.get("stage") != "left_out":
                    raise
                lacking = error  # what came is whole, and stays
            unpack.finish()
        if lacking is not None:
            raise lacking
        return unpack.bytes


def _here(target: bytes, name: bytes) -> bytes:
    """Below a directory that is there, else the path itself."""
    return os.path.join(target, name) if name and os.path.isdir(target) else target


@contextlib.contextmanager
def _opened_tree(path: bytes) -> Iterator[int]:
    """The directory `path`, made where it is missing; what stands in its place is not followed if it is a symbolic link."""
    directory, name = os.path.split(path.rstrip(b"/"))
    if name in (b"", b".", b".."):
        with _opened(path or b"/", _DIRECTORY) as top:
            yield top
        return
    with _opened(directory or b".", _DIRECTORY) as parent:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        with _opened(name, _DIRECTORY | os.O_NOFOLLOW, parent) as top:
            yield top


@contextlib.contextmanager
def _opened(path: bytes, flags: int, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _mode_of(parent: int, name: bytes) -> int:
    """Of what is there, or a symbolic link leads to; a plain file's where nothing is."""
    try:
        return os.stat(name, dir_fd=parent).st_mode
    except FileNotFoundError:
        return stat.S_IFREG


def base_name(path: bytes) -> bytes:
    """The last name of a path; empty where it has none, as `.` and `/`."""
    name = path.rstrip(b"/").rpartition(b"/")[2]
    return b"" if name in (b".", b"..") else name


def _read_all(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, CHUNK_BYTES):
        yield data


def _named(error: ArchiveError) -> str:
    return error.message if error.path is None else f"{os.fsdecode(error.path)}: {error.message}"
