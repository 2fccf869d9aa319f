"""fanotify(7): what is changed in whole file systems, with the process that did it.

Events name a directory by a file handle and an entry in it by its name (FAN_REPORT_DFID_NAME); `open_handle` makes a handle a descriptor
again. A mark is of the whole file system that a descriptor lies in, whichever mount is used. FAN_RENAME is Linux 5.17.

Sources: fanotify_init(2), fanotify_mark(2), fanotify(7), open_by_handle_at(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from coworkd.system import libc

FAN_ATTRIB = 0x4
FAN_CLOSE_WRITE = 0x8
FAN_CREATE = 0x100
FAN_DELETE = 0x200
FAN_Q_OVERFLOW = 0x4000
FAN_RENAME = 0x1000_0000
FAN_ONDIR = 0x4000_0000
CHANGES = FAN_ATTRIB | FAN_CLOSE_WRITE | FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_ONDIR

_INIT_FLAGS = 0x1 | 0x2 | 0x400 | 0x800  # CLOEXEC, NONBLOCK, REPORT_DIR_FID, REPORT_NAME
_MARK_ADD, _MARK_REMOVE, _MARK_FILESYSTEM = 0x1, 0x2, 0x100
_AT_FDCWD = -100
_METADATA = struct.Struct("=IBBHQii")
_VERSION = 3
_INFO = struct.Struct("=BBH8sIi")
"""struct fanotify_event_info_fid, up to the handle's own bytes: type, padding, length, fsid, handle bytes, handle type."""
_DFID_NAME, _OLD_DFID_NAME, _NEW_DFID_NAME = 2, 10, 12
_HANDLE = struct.Struct("=Ii")

_mark = libc.function("fanotify_mark")
_mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)


class Handle(NamedTuple):
    """A directory: which file system, and what that calls it."""

    fsid: bytes
    kind: int
    data: bytes


class Entry(NamedTuple):
    directory: Handle
    name: bytes
    """`.` is the directory itself."""


class FanotifyEvent(NamedTuple):
    """`mask` may hold several changes of one entry. `to` is there with FAN_RENAME; neither with FAN_Q_OVERFLOW."""

    mask: int
    pid: int
    entry: Entry | None
    to: Entry | None


def open_fanotify() -> int:
    """A non-blocking group with a bounded queue; the caller closes it. Needs CAP_SYS_ADMIN. Raises `OSError`."""
    function = libc.function("fanotify_init")
    return libc.check(function(ctypes.c_uint(_INIT_FLAGS), ctypes.c_uint(os.O_RDONLY | os.O_CLOEXEC)))


def mark_file_system(group: int, fd: int, *, mask: int = CHANGES, remove: bool = False) -> None:
    """Tell of the file system that `fd` (no O_PATH) lies in, or not any more.

    Raises `OSError`: ENODEV, EOPNOTSUPP and EXDEV where that file system has no handles or ids; EINVAL where the kernel is too old.
    """
    flags = (_MARK_REMOVE if remove else _MARK_ADD) | _MARK_FILESYSTEM
    libc.check(_mark(group, flags, mask, _AT_FDCWD, b"/proc/self/fd/%d" % fd))


def file_system_id(fd: int) -> bytes:
    """What events of its file system have as `Handle.fsid`."""
    return struct.pack("=Q", os.fstatvfs(fd).f_fsid & 0xFFFF_FFFF_FFFF_FFFF)


def open_handle(fd: int, handle: Handle) -> int:
    """An O_PATH descriptor of a directory of the file system that `fd` lies in. Raises `OSError`: ESTALE where it is gone."""
    buffer = ctypes.create_string_buffer(_HANDLE.pack(len(handle.data), handle.kind) + handle.data)
    function = libc.function("open_by_handle_at")
    return libc.check(function(fd, buffer, os.O_PATH | os.O_CLOEXEC))


def parse_events(data: bytes) -> Iterator[FanotifyEvent]:
    """What one read(2) gave. Of another version of the interface nothing is known: `ValueError`."""
    at = 0
    while at + _METADATA.size <= len(data):
        length, version, _, head, mask, fd, pid = _METADATA.unpack_from(data, at)
        if version != _VERSION or length < head:
            raise ValueError(f"fanotify speaks version {version}, we {_VERSION}")
        if fd >= 0:
            os.close(fd)
        entry, to = _parse_entries(data, at + head, at + length)
        yield FanotifyEvent(mask, pid, entry, to)
        at += length


def _parse_entries(data: bytes, at: int, end: int) -> tuple[Entry | None, Entry | None]:
    entry = to = None
    while at + _INFO.size <= end:
        kind, _, length, fsid, size, handle_kind = _INFO.unpack_from(data, at)
        body = at + _INFO.size
        found = Entry(
            Handle(fsid, handle_kind, data[body : body + size]), data[body + size : at + length].partition(b"\0")[0]
        )
        if kind in (_DFID_NAME, _OLD_DFID_NAME):
            entry = found
        elif kind == _NEW_DFID_NAME:
            to = found
        at += max(length, 4)
    return entry, to
