"""The kernel's FUSE protocol, as far as a guarded folder speaks it: bytes of /dev/fuse → `Request`, and answers → bytes.

Rules
- A request is one read: a header of 40 bytes, the opcode's fixed words, then names, each ended by a zero byte, or data.
- Any bytes give a `Request` or raise `ProtocolError`; its `unique` is 0 where not even the header could be read.
- Names of files are single components: no slash, neither `.` nor `..`; how long they may be the source says. What an extended attribute
  is called and where a symbolic link points are strings that may be anything but empty.
- Everything is in the machine's own byte order. Versions 7.31 and up, whose structures only grew at their ends.

It does no input or output. Sources: the kernel's include/uapi/linux/fuse.h, Documentation/filesystems/fuse.rst.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

MAJOR, MINOR, OLDEST_MINOR = 7, 38, 31
ROOT_NODE = 1
NAME_BYTES = 255
LINK_BYTES = 4096

MAX_WRITE_BYTES = 1024 * 1024
MAX_PAGES = 256
REQUEST_BYTES = MAX_WRITE_BYTES + 4096
"""The longest request: a whole write with its header. The kernel asks for at least this much room in each read."""


class Op(IntEnum):
    """What the kernel asks for; the numbers are its own."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


class Init:
    """Flags of INIT that matter here."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    HANDLE_KILLPRIV_V2 = 1 << 28


class Set:
    """Bits of SETATTR's `valid`."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


OPEN_KEEP_CACHE = 1 << 1
FSYNC_DATA_ONLY = 1 << 0
WRITE_CACHE = 1 << 0
"""Of WRITE: pages of the kernel's cache, which were mapped, through whatever descriptor can be written to."""
ENTRY_TIMEOUT_S = 1
"""How long the kernel believes a name and what it was told of it; after that a host's own changes are seen."""

HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
ENTRY_HEAD = struct.Struct("=QQQQII")
ATTR_HEAD = struct.Struct("=QII")
OPENED = struct.Struct("=QII")
WRITTEN = struct.Struct("=II")
OFFSET = struct.Struct("=Q")
STATFS = struct.Struct("=QQQQQIIII24x")
DIRENT = struct.Struct("=QQII")
INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")

_EMPTY = struct.Struct("=")
_SHAPES: dict[int, tuple[struct.Struct, int, bool]] = {
    # opcode: its fixed words, how many strings follow, whether data follows
    Op.LOOKUP: (_EMPTY, 1, False),
    Op.FORGET: (struct.Struct("=Q"), 0, False),
    Op.GETATTR: (struct.Struct("=IIQ"), 0, False),
    Op.SETATTR: (struct.Struct("=I4xQQQQQQIIII4xII4x"), 0, False),
    Op.READLINK: (_EMPTY, 0, False),
    Op.SYMLINK: (_EMPTY, 2, False),
    Op.MKNOD: (struct.Struct("=IIII"), 1, False),
    Op.MKDIR: (struct.Struct("=II"), 1, False),
    Op.UNLINK: (_EMPTY, 1, False),
    Op.RMDIR: (_EMPTY, 1, False),
    Op.RENAME: (struct.Struct("=Q"), 2, False),
    Op.LINK: (struct.Struct("=Q"), 1, False),
    Op.OPEN: (struct.Struct("=II"), 0, False),
    Op.READ: (struct.Struct("=QQIIQII"), 0, False),
    Op.WRITE: (struct.Struct("=QQIIQII"), 0, True),
    Op.STATFS: (_EMPTY, 0, False),
    Op.RELEASE: (struct.Struct("=QIIQ"), 0, False),
    Op.FSYNC: (struct.Struct("=QII"), 0, False),
    Op.SETXATTR: (struct.Struct("=II"), 1, True),
    Op.GETXATTR: (struct.Struct("=II"), 1, False),
    Op.LISTXATTR: (struct.Struct("=II"), 0, False),
    Op.REMOVEXATTR: (_EMPTY, 1, False),
    Op.INIT: (struct.Struct("=IIII"), 0, True),
    Op.OPENDIR: (struct.Struct("=II"), 0, False),
    Op.READDIR: (struct.Struct("=QQIIQII"), 0, False),
    Op.RELEASEDIR: (struct.Struct("=QIIQ"), 0, False),
    Op.FSYNCDIR: (struct.Struct("=QII"), 0, False),
    Op.CREATE: (struct.Struct("=IIII"), 1, False),
    Op.INTERRUPT: (struct.Struct("=Q"), 0, False),
    Op.DESTROY: (_EMPTY, 0, False),
    Op.BATCH_FORGET: (struct.Struct("=II"), 0, True),
    Op.FALLOCATE: (struct.Struct("=QQQII"), 0, False),
    Op.READDIRPLUS: (struct.Struct("=QQIIQII"), 0, False),
    Op.RENAME2: (struct.Struct("=QII"), 2, False),
    Op.LSEEK: (struct.Struct("=QQII"), 0, False),
    Op.COPY_FILE_RANGE: (struct.Struct("=QQQQQQQ"), 0, False),
    Op.TMPFILE: (struct.Struct("=IIII"), 0, False),
}
_STRINGS_OF_ANY_KIND = frozenset({Op.SETXATTR, Op.GETXATTR, Op.REMOVEXATTR})
_FORGET_ONE = struct.Struct("=QQ")
_NO_NAMES: tuple[bytes, ...] = ()
_NO_DATA = memoryview(b"")
_DOTS = (b"", b".", b"..")


class ProtocolError(Exception):
    """What no kernel sends. `unique` is the request to be answered with an error; 0 where there is none."""

    def __init__(self, unique: int, message: str) -> None:
        super().__init__(message)
        self.unique = unique


class Request(NamedTuple):
    """One request. `words` are the fixed words of its opcode, in the kernel's order and without their padding."""

    opcode: int
    unique: int
    node: int
    pid: int
    words: tuple[int, ...]
    names: tuple[bytes, ...]
    data: memoryview
    """Of the buffer it was parsed from: gone with the next read."""


def parse_request(data: memoryview) -> Request:
    """The request in `data`, which is one whole read. Raises `ProtocolError`."""
    if len(data) < 40:
        raise ProtocolError(0, f"a request of {len(data)} bytes is shorter than its header")
    length, opcode, unique, node, _uid, _gid, pid, extensions, _padding = HEADER.unpack_from(data)
    if length != len(data):
        raise ProtocolError(unique, f"a request says {length} bytes and has {len(data)}")
    shape = _SHAPES.get(opcode)
    if shape is None:
        return Request(opcode, unique, node, pid, (), _NO_NAMES, _NO_DATA)
    words, names, tail = shape
    start = 40 + words.size
    end = length - 8 * extensions
    if end < start:
        raise ProtocolError(unique, f"opcode {opcode} comes with {length} bytes")
    fixed = words.unpack_from(data, 40) if words.size else ()
    strings = _NO_NAMES
    if names:
        strings, start = _parse_strings(opcode, unique, data[start:end], names, start)
    return Request(opcode, unique, node, pid, fixed, strings, data[start:end] if tail else _NO_DATA)


def _parse_strings(opcode: int, unique: int, data: memoryview, count: int, start: int) -> tuple[tuple[bytes, ...], int]:
    parts = bytes(data[: (LINK_BYTES + 1) * count]).split(b"\0", count)
    if len(parts) != count + 1:
        raise ProtocolError(unique, f"opcode {opcode} comes without the end of its {count} strings")
    strings = tuple(parts[:count])
    for number, name in enumerate(strings):
        if (opcode == Op.SYMLINK and number == 1) or opcode in _STRINGS_OF_ANY_KIND:
            if not name:
                raise ProtocolError(unique, f"opcode {opcode} comes with an empty string")
        elif name in _DOTS or b"/" in name:
            raise ProtocolError(unique, f"opcode {opcode} names {name!r}, which is no single name")
    return strings, start + sum(map(len, strings)) + count


def parse_forgets(request: Request) -> list[tuple[int, int]]:
    """Node and count of each entry of BATCH_FORGET. Raises `ProtocolError`."""
    count = request.words[0]
    if len(request.data) < count * _FORGET_ONE.size:
        raise ProtocolError(request.unique, f"{count} nodes are to be forgotten, in {len(request.data)} bytes")
    return list(_FORGET_ONE.iter_unpack(request.data[: count * _FORGET_ONE.size]))


def compose_answer(unique: int, payload: bytes) -> bytes:
    """One whole answer, to be written at once."""
    return OUT_HEADER.pack(16 + len(payload), 0, unique) + payload


def compose_error(unique: int, number: int) -> bytes:
    """An answer that is an errno."""
    return OUT_HEADER.pack(16, -number, unique)


WANTED = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.AUTO_INVAL_DATA
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.HANDLE_KILLPRIV_V2
)
"""Locks and poll stay the kernel's own. No write-back cache: a host that edits the same file would be overwritten by what the kernel
remembers of its size. Set-id bits and capabilities of a file are taken away by its own file system at each write of ours, so the kernel
need not ask before each write."""


def compose_init(request: Request) -> bytes:
    """The payload that answers INIT. Raises `ProtocolError` where the kernel is too old or too new for this protocol."""
    major, minor, readahead, offered = request.words
    if major != MAJOR or minor < OLDEST_MINOR:
        raise ProtocolError(request.unique, f"the kernel speaks FUSE {major}.{minor}, we {MAJOR}.{OLDEST_MINOR} and up")
    flags = WANTED & offered
    return INIT_OUT.pack(MAJOR, min(minor, MINOR), readahead, flags, 64, 48, MAX_WRITE_BYTES, 1, MAX_PAGES, 0, 0)
