"""What an archive holds, one entry at a time, and which names an entry may have.

Pure. Source: POSIX pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

BLOCK_BYTES = 512
PATH_LIMIT_BYTES = 4095
EntryKind = Literal["file", "directory", "symlink", "hardlink", "other"]


class ArchiveError(Exception):
    """The archive is none of ours, or an entry of it is not taken. `path` is the entry's, where it has one."""

    def __init__(self, message: str, path: bytes | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class Entry(Struct, frozen=True, kw_only=True):
    """One entry. `size` counts the bytes that follow, which only a file has; `path` is as it stands in the archive."""

    path: bytes
    kind: EntryKind
    mode: int = 0o644
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    """Of a symbolic link where it leads; of a hard link the path of an entry before it."""


def split_path(path: bytes) -> tuple[bytes, ...]:
    """The names of a path below the archive's top, none for the top itself. Raises `ArchiveError` for one that may lead out of it."""
    if path.startswith(b"/"):
        raise ArchiveError("an entry has an absolute path: make the archive relative to its top", path)
    if b"\0" in path or len(path) > PATH_LIMIT_BYTES:
        raise ArchiveError(f"an entry's path has a NUL or more than {PATH_LIMIT_BYTES} bytes", path[:PATH_LIMIT_BYTES])
    names = tuple(name for name in path.split(b"/") if name not in (b"", b"."))
    if b".." in names:
        raise ArchiveError("an entry has '..' in its path", path)
    return names
