"""Of what kind the file system behind a descriptor is. Source: fstatfs(2), linux/magic.h."""

from __future__ import annotations

import ctypes
import struct

from coworkd.system import libc

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
DEVPTS_SUPER_MAGIC = 0x1CD1
NSFS_MAGIC = 0x6E736673
DEBUGFS_MAGIC = 0x64626720
TRACEFS_MAGIC = 0x74726163
SECURITYFS_MAGIC = 0x73636673
BPF_FS_MAGIC = 0xCAFE4A11

_STATFS_BYTES = 256
"""struct statfs has 120 bytes on the machines we know."""


def file_system_kind(fd: int) -> int:
    """`f_type`, also of an O_PATH descriptor. Raises `OSError`."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    libc.check(libc.function("fstatfs")(ctypes.c_int(fd), buffer))
    kind: int = struct.unpack_from("@l", buffer)[0]
    return kind & 0xFFFFFFFF
