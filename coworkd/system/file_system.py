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
CONFIGFS_MAGIC = 0x62656570
EFIVARFS_MAGIC = 0xDE5E81E4
PSTORE_MAGIC = 0x6165676C
SELINUX_MAGIC = 0xF97CFF8C
BINFMTFS_MAGIC = 0x42494E4D
FUSE_CTL_MAGIC = 0x65735543
KERNEL_KINDS = frozenset(
    [
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC,
        DEVPTS_SUPER_MAGIC,
        NSFS_MAGIC,
        DEBUGFS_MAGIC,
        TRACEFS_MAGIC,
        SECURITYFS_MAGIC,
        BPF_FS_MAGIC,
        CONFIGFS_MAGIC,
        EFIVARFS_MAGIC,
        PSTORE_MAGIC,
        SELINUX_MAGIC,
        BINFMTFS_MAGIC,
        FUSE_CTL_MAGIC,
    ]
)
"""What is in them is the kernel itself: no place for files."""

_STATFS_BYTES = 256
"""struct statfs has 120 bytes on the machines we know."""


def file_system_kind(fd: int) -> int:
    """`f_type`, also of an O_PATH descriptor. Raises `OSError`."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    libc.check(libc.function("fstatfs")(ctypes.c_int(fd), buffer))
    kind: int = struct.unpack_from("@l", buffer)[0]
    return kind & 0xFFFFFFFF


def is_kernels(fd: int) -> bool:
    """Whether it lies on one of `KERNEL_KINDS`. Raises `OSError`."""
    return file_system_kind(fd) in KERNEL_KINDS
