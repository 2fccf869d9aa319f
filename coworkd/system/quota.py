"""Project quota: which project a directory's files belong to, and how much a project may have.

A project is a number that files carry and new files take from their directory (FS_XFLAG_PROJINHERIT). Blocks are counted in units of 1,024
bytes. quotactl_fd(2) takes the file system by a descriptor, from kernel 5.14 on.

Sources: quotactl(2), ioctl_xfs_fsgetxattr(2), <linux/dqblk_xfs.h>, <linux/quota.h>.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from collections.abc import Callable

from msgspec import Struct

from coworkd.system import libc

PRJQUOTA = 2
Q_GETQUOTA, Q_SETQUOTA = 0x800007, 0x800008
QIF_LIMITS = 1 | 4
UNIT_BYTES = 1024
_SYS_QUOTACTL_FD = 443
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=5I8s")
_DQBLK = struct.Struct("=8QI4x")

Quotactl = Callable[[int, int, int, "ctypes.Array[ctypes.c_char]"], int]


class ProjectUse(Struct, frozen=True, kw_only=True):
    """What a project has, and may have; a limit of 0 is none."""

    bytes: int
    inodes: int
    limit_bytes: int
    limit_inodes: int


def kernel_has_quota(proc: str = "/proc") -> bool:
    """Whether this kernel can count what projects have: without, it mounts no ext4 that wants it for writing.

    The call alone is no sign: XFS brings it too. The format's module may still be missing, which only a mount shows.
    """
    return os.path.isdir(f"{proc}/sys/fs/quota")


def set_project(fd: int, project: int) -> None:
    """Give the file or directory `fd` to a project; files that are made in a directory from now on follow. Raises `OSError`."""
    inherited = _FS_XFLAG_PROJINHERIT if stat.S_ISDIR(os.fstat(fd).st_mode) else 0  # on a file ext4 refuses it
    record = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, record)
    flags, extent, extents, _, cow, rest = _FSXATTR.unpack(record)
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags | inherited, extent, extents, project, cow, rest))


def get_project(fd: int) -> int:
    """Raises `OSError`: ENOTTY or EOPNOTSUPP where the file system knows no projects."""
    record = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, record)
    return int(_FSXATTR.unpack(record)[3])


def set_limit(fd: int, project: int, *, limit_bytes: int, limit_inodes: int, quotactl: Quotactl | None = None) -> None:
    """Bound a project of the file system of `fd`; 0 is no bound. Rounded up to whole units. Raises `OSError`."""
    blocks = -(-limit_bytes // UNIT_BYTES)
    record = ctypes.create_string_buffer(
        _DQBLK.pack(blocks, blocks, 0, limit_inodes, limit_inodes, 0, 0, 0, QIF_LIMITS), _DQBLK.size
    )
    (quotactl or quotactl_fd)(fd, Q_SETQUOTA, project, record)


def get_use(fd: int, project: int, *, quotactl: Quotactl | None = None) -> ProjectUse:
    """Raises `OSError`: ESRCH where nothing counts projects."""
    record = ctypes.create_string_buffer(_DQBLK.size)
    (quotactl or quotactl_fd)(fd, Q_GETQUOTA, project, record)
    hard, _, used, inode_hard, _, inodes, *_ = _DQBLK.unpack(record.raw)
    return ProjectUse(bytes=used, inodes=inodes, limit_bytes=hard * UNIT_BYTES, limit_inodes=inode_hard)


def quotactl_fd(fd: int, command: int, project: int, record: ctypes.Array[ctypes.c_char]) -> int:
    """quotactl_fd(2) for projects."""
    return libc.syscall(_SYS_QUOTACTL_FD, fd, (command << 8) | PRJQUOTA, project, record)
