"""What an entry of a directory is, as far as a staged folder asks: its kind, and whether it is still the one that was seen.

`Ident` is kept in 37 bytes, little-endian: kind (1), mode (4), size (8), mtime and ctime in ns (8 each), inode (8). Pure, but for
`look`.

What it is compared by: kind, size, mtime and ctime; the inode too where the file system has a device of its own, for those on shares
(FUSE) may change from one mount to the next. ctime is the kernel's: nobody can set it back, so a changed entry shows, whatever its
mtime says (inode(7)).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator

from msgspec import Struct

from coworkd.model.calls_folders import EntryKind

_PACKED = struct.Struct("<BIQqqQ")
IDENT_BYTES = _PACKED.size
_KINDS: tuple[EntryKind, ...] = ("file", "directory", "symlink", "other")
MODE_BITS = 0o777
"""What of a mode is kept: set-user-id, set-group-id and the sticky bit are never a session's to give."""


class Ident(Struct, frozen=True):
    """One entry as it was at one moment."""

    kind: EntryKind
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def pack(self) -> bytes:
        return _PACKED.pack(
            _KINDS.index(self.kind), self.mode, self.size, self.mtime_ns, self.ctime_ns, self.inode & (2**64 - 1)
        )


def unpack(data: bytes) -> Ident:
    """Raises `ValueError` where these are no `IDENT_BYTES` of an ident."""
    try:
        kind, mode, size, mtime_ns, ctime_ns, inode = _PACKED.unpack(data)
        return Ident(_KINDS[kind], mode, size, mtime_ns, ctime_ns, inode)
    except (struct.error, IndexError) as error:
        raise ValueError("no record of an entry") from error


def ident_of(found: os.stat_result) -> Ident:
    return Ident(
        kind_of(found.st_mode),
        stat.S_IMODE(found.st_mode),
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_ino if has_steady_inodes(found) else 0,
    )


def has_steady_inodes(found: os.stat_result) -> bool:
    """Whether its file system lies on a device, so that an inode's number stays its own (those of FUSE and the like have major 0)."""
    return os.major(found.st_dev) != 0


def is_same(before: Ident, now: Ident) -> bool:
    """Whether nothing of a file or link was changed in between; directories are the same while they are directories."""
    if before.kind != now.kind:
        return False
    if now.kind == "directory":
        return True
    return (before.size, before.mtime_ns, before.ctime_ns, before.inode) == (
        now.size,
        now.mtime_ns,
        now.ctime_ns,
        now.inode,
    )


def kind_of(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def is_whiteout(found: os.stat_result) -> bool:
    """Whether overlayfs says by it that there is nothing: a character device 0/0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def look(name: bytes, directory_fd: int) -> os.stat_result | None:
    """lstat(2) in a directory; None where there is nothing of that name. Raises `OSError` for all else."""
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def walk_key(path: bytes) -> bytes:
    """What paths are sorted by: a directory comes before what lies in it, and all of that before what comes next. No name has a NUL."""
    return path.replace(b"/", b"\0")


def above(path: bytes) -> Iterator[bytes]:
    """The directories that lead to `path`, nearest first, without the folder itself."""
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def all_above(paths: Iterable[bytes]) -> set[bytes]:
    """The directories that lead to any of `paths`; each is looked at once, however deep they lie."""
    found: set[bytes] = set()
    for path in paths:
        for top in above(path):
            if top in found:
                break
            found.add(top)
    return found


def parent_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def name_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
