"""FITRIM: tell the device below a file system what is free. Source: ioctl_fs(2) in <linux/fs.h>, fstrim(8)."""

from __future__ import annotations

import fcntl
import struct

_FITRIM = 0xC0185879
_RANGE = struct.Struct("=QQQ")
_ALL = 0xFFFF_FFFF_FFFF_FFFF


def trim(fd: int) -> int:
    """How many bytes were told; `fd` is any directory of the file system. Raises `OSError`: EOPNOTSUPP where the device takes none."""
    record = bytearray(_RANGE.pack(0, _ALL, 0))
    fcntl.ioctl(fd, _FITRIM, record)
    return int(_RANGE.unpack(record)[1])
