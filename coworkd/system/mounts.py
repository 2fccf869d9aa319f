"""The mount calls, old and new, one function each.

The new calls (open_tree, move_mount, mount_setattr, fsopen) have no libc wrapper in glibc 2.35, so they go by number; numbers from
424 on are the same on every architecture. Sources: mount(2), open_tree(2), move_mount(2), mount_setattr(2), fsopen(2),
fsconfig(2), fsmount(2), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from coworkd.system import libc

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

MNT_FORCE = 0x1
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x100000

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
_OPEN_TREE_CLONE = 0x1
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_SAID_LIMIT_BYTES = 4096
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40

_mount = libc.function("mount")
_umount2 = libc.function("umount2")


def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes = b"") -> None:
    """mount(2)."""
    libc.check(_mount(source, target, kind, ctypes.c_ulong(flags), data or None), target)


def umount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    libc.check(_umount2(target, flags), target)


def open_tree(fd: int, *, recursive: bool) -> int:
    """A detached clone of the mount at `fd` (a path descriptor), not in any namespace until `move_mount`; caller closes it."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return libc.syscall(_SYS_OPEN_TREE, fd, b"", flags)


def move_mount(fd: int, target_fd: int) -> None:
    """Attach the detached mount `fd` on the directory or file `target_fd`."""
    libc.syscall(_SYS_MOVE_MOUNT, fd, b"", target_fd, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(
    fd: int, *, set_attributes: int, user_namespace: int | None = None, propagation: int = 0, recursive: bool
) -> None:
    """mount_setattr(2) on the mount `fd` refers to; with a `user_namespace` descriptor the mount is idmapped by it.

    A clone of a shared mount is its peer until `propagation` (MS_PRIVATE) makes it none: what is mounted below one appears below both.

    EINVAL: the file system cannot be idmapped, or the mount is not a detached clone.
    """
    if user_namespace is not None:
        set_attributes |= MOUNT_ATTR_IDMAP
    record = ctypes.create_string_buffer(struct.pack("=QQQQ", set_attributes, 0, propagation, user_namespace or 0), 32)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    libc.syscall(_SYS_MOUNT_SETATTR, fd, b"", flags, record, 32)


def make_file_system(kind: str, options: Iterable[tuple[str, str | None]], *, attributes: int) -> int:
    """A new, detached mount of the file system `kind` with the MOUNT_ATTR_* of `attributes`; the caller closes it.

    An option without a value is a flag. Raises `OSError`, in the kernel's own words where it left some (fsopen(2)).
    """
    context = libc.syscall(_SYS_FSOPEN, kind.encode() + b"\0", _FSOPEN_CLOEXEC)
    try:
        for key, value in options:
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            given = None if value is None else os.fsencode(value) + b"\0"
            libc.syscall(_SYS_FSCONFIG, context, command, key.encode() + b"\0", given, 0)
        libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return libc.syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        raise OSError(error.errno, _said(context) or error.strerror, kind) from None
    finally:
        os.close(context)


def _said(context: int) -> str:
    """What the kernel has to say of a file system that could not be made: `e why`, a message a read."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(context, _SAID_LIMIT_BYTES)
        except OSError:  # ENODATA: there is no more
            return "; ".join(lines)
        lines.append(line.decode(errors="replace").strip().partition(" ")[2])


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)."""
    libc.syscall(_SYS_PIVOT_ROOT, new_root, put_old)
