"""The shapes of `file.*`. Paths are absolute, as the session sees them, or relative to its home."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Mutating, Params
from coworkd.model.names import OsBytes

FileKind = Literal["file", "directory", "symlink", "fifo", "socket", "device"]


class FilePath(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    path: OsBytes


class FileRead(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """At most 1 MiB a call; a larger `limit` is refused."""

    session: str
    path: OsBytes
    offset: int = 0
    limit: int = 1024 * 1024


class FileData(Answer, frozen=True, kw_only=True):
    data: bytes
    size: int
    """Of the whole file, now."""
    eof: bool


class FileWrite(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Replace the file as a whole, by a rename (`atomic`), or append. `mode` holds for a file that is new."""

    session: str
    path: OsBytes
    data: bytes
    mode: int = 0o644
    append: bool = False
    create: Literal["auto", "new", "existing"] = "auto"
    parents: bool = False


class FileWritten(Answer, frozen=True, kw_only=True):
    size: int
    atomic: bool = True
    """Whether it took its place by a rename: not where it was added to, or is a mount point of its own."""


class FileStat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lstat(2) says; of a symbolic link where it leads."""

    path: OsBytes
    """As it was asked for; of a list's entry its name alone."""
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    modified_at: float
    links: int = 1
    target: OsBytes | None = None


class FileStated(Answer, frozen=True, kw_only=True):
    stat: FileStat


class FileListParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Entries by name, behind `after`."""

    session: str
    path: OsBytes
    after: OsBytes = OsBytes(b"")
    limit: int = 1000


class FileListed(Answer, frozen=True, kw_only=True):
    entries: tuple[FileStat, ...]
    more: bool


class FileMkdir(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    path: OsBytes
    mode: int = 0o755
    parents: bool = False


class FileMove(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    path: OsBytes
    to: OsBytes
    overwrite: bool = False


class FileRemove(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    path: OsBytes
    recursive: bool = False


class FileRemoved(Answer, frozen=True, kw_only=True):
    entries: int


class FileUpload(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A stream whose bytes become the file `path` (whole, at its end, by a rename) or, with `tar`, a tree below the directory `path`."""

    session: str
    path: OsBytes
    tar: bool = False
    mode: int = 0o644
    mtime_ns: int | None = None
    """The file's time of change; None is now."""
    size: int | None = None
    """What is to come, where it is known: a disk that is too small is told before the first byte."""


class FileUploadOpened(Answer, frozen=True, kw_only=True):
    stream: str


class FileDownload(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A stream with the bytes of a file or, with `tar`, of a file or tree as a POSIX pax archive."""

    session: str
    path: OsBytes
    tar: bool = False
    window: int | None = None


class FileDownloadOpened(Answer, frozen=True, kw_only=True):
    stream: str
    size: int | None
    """In bytes; None of an archive, as the others are."""
    mode: int | None = None
    mtime_ns: int | None = None
