"""inotify(7): what is changed in single directories. It does not say who it was.

Sources: inotify(7), inotify_add_watch(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from coworkd.system import libc

IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ISDIR = 0x4000_0000
CHANGES = IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_IN_ONLYDIR, _IN_EXCL_UNLINK = 0x0100_0000, 0x0400_0000
_EVENT = struct.Struct("=iIII")


class InotifyEvent(NamedTuple):
    """`cookie` is the same for both halves of a rename; `name` is empty for the directory itself."""

    watch: int
    mask: int
    cookie: int
    name: bytes


def open_inotify() -> int:
    """A non-blocking instance; the caller closes it. Raises `OSError`."""
    return libc.check(libc.function("inotify_init1")(os.O_CLOEXEC | os.O_NONBLOCK))


def add_watch(instance: int, directory_fd: int, mask: int = CHANGES) -> int:
    """Watch one directory; its number, the same for the same directory. Raises `OSError`: ENOSPC at the user's limit."""
    path = b"/proc/self/fd/%d" % directory_fd
    flags = ctypes.c_uint(mask | _IN_ONLYDIR | _IN_EXCL_UNLINK)
    return libc.check(libc.function("inotify_add_watch")(instance, path, flags))


def remove_watch(instance: int, watch: int) -> None:
    """Raises `OSError`: EINVAL where it is gone already."""
    libc.check(libc.function("inotify_rm_watch")(instance, watch))


def parse_events(data: bytes) -> Iterator[InotifyEvent]:
    """What one read(2) gave."""
    at = 0
    while at + _EVENT.size <= len(data):
        watch, mask, cookie, length = _EVENT.unpack_from(data, at)
        name = data[at + _EVENT.size : at + _EVENT.size + length].partition(b"\0")[0]
        yield InotifyEvent(watch, mask, cookie, name)
        at += _EVENT.size + length
