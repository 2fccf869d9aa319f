"""The words between coworkd and the worker of `file.*`: one SOCK_SEQPACKET message each, MessagePack of these tagged structs.

The worker has a session's rights and its view, and nothing else.

Rules
- Paths are absolute, bytes without NUL, as the session sees them. Symbolic links in them are followed as the session's own programs
  would; the last name of what is moved, removed or looked at is not.
- A request carries `id`; each is answered by exactly one message of the same id, `FileFault` where it could not be done. Answers come in
  any order.
- `Upload` and `Download` bring two sockets: a stream with the bytes, and a SEQPACKET one for the end. Who sends the bytes says so on the
  second *before* closing the first (an uploader with `Finish`, a worker with `Moved` or `FileFault`), so an end of the bytes without it is
  an abort. Whoever receives a socket owns it.
- `RemoveSome` works for about a second; `more` asks to be asked again. So no request that makes headway is taken for one that hangs.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from msgspec import Struct

from coworkd.model.calls_files import FileKind

READ_LIMIT_BYTES = 1024 * 1024
LIST_LIMIT = 3000
"""A message on the wire has at most 65,536 values, and an entry up to 19 of them."""
LIST_LIMIT_BYTES = 1024 * 1024
"""About as much of names and targets is in one page."""
PATH_LIMIT_BYTES = 4095
"""PATH_MAX without its NUL."""
TRANSFERS_PER_WORKER = 64
ENTRIES_LIMIT = 1_000_000
"""The most entries of an archive."""
TOLD_LIMIT = 16
"""How many of the paths that were left out are named; all are counted."""

Create = Literal["auto", "new", "existing"]


class ReadSome(Struct, frozen=True, kw_only=True, tag="read"):
    id: int
    path: bytes
    offset: int
    limit: int


class SomeRead(Struct, frozen=True, kw_only=True, tag="read"):
    id: int
    data: bytes
    size: int
    eof: bool


class WriteWhole(Struct, frozen=True, kw_only=True, tag="write"):
    """Replace the file by a rename, or add to its end."""

    id: int
    path: bytes
    data: bytes
    mode: int
    append: bool
    create: Create
    parents: bool
    home: bytes
    """Where the bytes wait if the directory of `path` takes no new file."""


class WholeWritten(Struct, frozen=True, kw_only=True, tag="written"):
    id: int
    size: int
    atomic: bool


class LookAt(Struct, frozen=True, kw_only=True, tag="stat"):
    id: int
    path: bytes


class EntryStat(Struct, frozen=True, kw_only=True, array_like=True):
    """What lstat(2) says; `name` without its directory."""

    name: bytes
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    modified_at: float
    links: int
    target: bytes | None


class LookedAt(Struct, frozen=True, kw_only=True, tag="stat"):
    id: int
    stat: EntryStat


class ListSome(Struct, frozen=True, kw_only=True, tag="list"):
    """Entries by name, behind `after`."""

    id: int
    path: bytes
    after: bytes
    limit: int


class SomeListed(Struct, frozen=True, kw_only=True, tag="list"):
    id: int
    entries: tuple[EntryStat, ...]
    more: bool


class MakeDirectory(Struct, frozen=True, kw_only=True, tag="mkdir"):
    id: int
    path: bytes
    mode: int
    parents: bool


class MoveEntry(Struct, frozen=True, kw_only=True, tag="move"):
    id: int
    path: bytes
    to: bytes
    overwrite: bool


class FileDone(Struct, frozen=True, kw_only=True, tag="done"):
    id: int


class RemoveSome(Struct, frozen=True, kw_only=True, tag="remove"):
    id: int
    path: bytes
    recursive: bool
    again: bool = False
    """The same removal goes on; that nothing is there any more is fine then."""


class SomeRemoved(Struct, frozen=True, kw_only=True, tag="removed"):
    id: int
    entries: int
    more: bool


class Upload(Struct, frozen=True, kw_only=True, tag="upload"):
    """Answered by `FileDone` when the target can be written to; two descriptors come along (see above)."""

    id: int
    path: bytes
    tar: bool
    mode: int
    mtime_ns: int | None
    size: int | None
    home: bytes


class Download(Struct, frozen=True, kw_only=True, tag="download"):
    """Answered by `DownloadBegun`; two descriptors come along (see above)."""

    id: int
    path: bytes
    tar: bool


class DownloadBegun(Struct, frozen=True, kw_only=True, tag="begun"):
    """Of an archive nothing is known beforehand."""

    id: int
    size: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None


class FileFault(Struct, frozen=True, kw_only=True, tag="fault"):
    """It was not done, or not wholly. `stage` says what a program can act on where errno does not."""

    id: int = 0
    errno: int | None
    message: str
    path: bytes | None = None
    stage: str | None = None
    entries: int = 0
    """What had been done by then: entries removed, or written."""


class Finish(Struct, frozen=True, kw_only=True, tag="finish"):
    """That was all of an upload."""

    size: int


class Moved(Struct, frozen=True, kw_only=True, tag="moved"):
    """The transfer is over: of an upload, all of it stands. `left_out` names some of the `omitted` entries that a download has not."""

    entries: int
    size: int
    atomic: bool = True
    omitted: int = 0
    left_out: tuple[bytes, ...] = ()


ToWorker = ReadSome | WriteWhole | LookAt | ListSome | MakeDirectory | MoveEntry | RemoveSome | Upload | Download
FromWorker = SomeRead | WholeWritten | LookedAt | SomeListed | FileDone | SomeRemoved | DownloadBegun | FileFault
TransferEnd = Moved | FileFault
Answered = TypeVar("Answered", bound=Struct)
