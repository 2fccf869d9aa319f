"""Files of a bundle: written whole or not at all, read to the end, and what the disk says about it in words.

Rules
- `write_whole` leaves the old file or the new one after a power cut, never a part: a temporary file beside it, fsync, rename, fsync of
  the directory. What an earlier one left is overwritten by the next, since the temporary name is always the same.
- Blocks of zeros are not written: an image with much free space takes no room for it.
- Room is asked for before a long copy, and a disk that fills up all the same leaves nothing half-made.
- All of it blocks; `Progress` is called between pieces, in the same thread, and may raise to end it.

Sources: rename(2), fsync(2), statvfs(3).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from host_stub.words import Trouble

PIECE_BYTES = 1 << 20
SPARE_BYTES = 64 << 20
"""As much stays free beside what is written: logs, and whatever else this disk is for."""

Progress = Callable[[str, int, int], None]
"""What is done, bytes done, bytes in all."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Whoever does not want to know."""


@contextlib.contextmanager
def telling(doing: str, path: Path) -> Iterator[None]:
    """Within it an `OSError` becomes a `Trouble` that says what was done to which file and what to do now."""
    try:
        yield
    except OSError as error:
        raise trouble_of(error, doing, path) from error


def trouble_of(error: OSError, doing: str, path: Path) -> Trouble:
    """The trouble that stands for an error of the file system."""
    said = f"{doing} {path} failed: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Trouble("no_space", said, remedy="make room on that disk and try again; nothing half-made is left")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Trouble("no_permission", said, remedy="let the user who runs this read and write there")
    if error.errno == errno.ENOENT:
        return Trouble("no_file", said, remedy="look whether the path is right")
    return Trouble("disk_failed", said, remedy="look at that disk, or use another")


def require_room(directory: Path, wanted_bytes: int, *, what: str) -> None:
    """Raise `Trouble` (`no_space`) where `directory`'s file system has not room for `wanted_bytes` and some to spare."""
    with telling("looking at", directory):
        free = shutil.disk_usage(directory).free
    if free < wanted_bytes + SPARE_BYTES:
        raise Trouble(
            "no_space",
            f"{what} takes {shown_bytes(wanted_bytes)}, and {directory} has only {shown_bytes(free)} free",
            remedy=f"make at least {shown_bytes(wanted_bytes + SPARE_BYTES - free)} of room there, or use another --bundle",
            details={"wanted_bytes": wanted_bytes, "free_bytes": free},
        )


def shown_bytes(count: int) -> str:
    """`1536 MiB`, `3.0 GiB`: as people say sizes."""
    if count >= 10 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count / (1 << 20):.0f} MiB" if count >= 10 << 20 else f"{count / 1024:.0f} KiB"


def read_pieces(path: Path, what: str, progress: Progress) -> Iterator[bytes]:
    """The bytes of a file in pieces. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        total, done = os.fstat(file.fileno()).st_size, 0
        while piece := file.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            progress(what, done, max(total, done))


def hash_file(path: Path, what: str, progress: Progress) -> tuple[int, str]:
    """Size and SHA-256 of all of a file. Raises `OSError`."""
    digest, size = hashlib.sha256(), 0
    for piece in read_pieces(path, what, progress):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def write_whole(path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
    """Make `path` hold `pieces`, or leave it as it was. Raises `OSError`, and whatever `pieces` raises."""
    with replacing(path, mode=mode) as file:
        _write_sparse(file, pieces)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o600) -> Iterator[int]:
    """A descriptor of a new file that takes `path`'s place, durably, where the `with` ends well; else nothing of it stays."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        yield fd
        os.fsync(fd)
        new.replace(path)
        sync_directory(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_sparse(fd: int, pieces: Iterable[bytes]) -> None:
    size = 0
    for piece in pieces:
        if piece.count(0) == len(piece):
            os.lseek(fd, len(piece), os.SEEK_CUR)
        else:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        size += len(piece)
    os.ftruncate(fd, size)
