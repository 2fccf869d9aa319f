"""Loop devices: a plain file as a block device.

Every one of ours clears itself when its last user goes (LO_FLAGS_AUTOCLEAR), so that nothing is left after a crash; until it is mounted
its descriptor is that user. Source: loop(4), <linux/loop.h>.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from coworkd.system.block_devices import SECTOR_BYTES

_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct(f"=II{_INFO.size}s64s")
_NAME_BYTES = 63
_TRIES = 32


def attach(file_fd: int, name: bytes, *, dev: str = "/dev") -> tuple[int, str]:
    """A free loop device on the open file, with its descriptor (the caller's) and its path; `name` is for people.

    Raises `OSError`: ENOENT or EACCES where this machine has no loop devices, ENOSPC where none is free.
    """
    for _ in range(_TRIES):
        control = os.open(f"{dev}/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        path = f"{dev}/loop{number}"
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, name[-_NAME_BYTES:], b"", b"", 0, 0)
        try:
            fcntl.ioctl(fd, _LOOP_CONFIGURE, _CONFIG.pack(file_fd, 0, info, b""))
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EBUSY:  # somebody else was as quick: take another
                raise
            continue
        return fd, path
    raise OSError(errno.ENOSPC, "no loop device is free", f"{dev}/loop-control")


def find_attached(file_fd: int, *, sys: str = "/sys", dev: str = "/dev") -> list[str]:
    """The paths of the loop devices that lie on this very file."""
    wanted = os.fstat(file_fd)
    found = []
    for name in sorted(os.listdir(f"{sys}/block")):
        if name.startswith("loop") and os.path.exists(f"{sys}/block/{name}/loop/backing_file"):
            with contextlib.suppress(OSError):
                path = f"{dev}/{name}"
                if backing(path) == (wanted.st_dev, wanted.st_ino):
                    found.append(path)
    return found


def backing(path: str) -> tuple[int, int]:
    """Device and inode of the file below a loop device. Raises `OSError` (ENXIO where there is none)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        record = bytearray(_INFO.size)
        fcntl.ioctl(fd, _LOOP_GET_STATUS64, record)
    finally:
        os.close(fd)
    device, inode = _INFO.unpack(record)[:2]
    return device, inode


def set_capacity(fd: int) -> None:
    """Have the device take its file's new size."""
    fcntl.ioctl(fd, _LOOP_SET_CAPACITY, 0)


def detach(fd: int) -> None:
    """Take the device off its file now; one that is in use goes with its last user."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _LOOP_CLR_FD, 0)


def whole_sectors(size_bytes: int) -> int:
    """What a loop device makes of a file of this size: whole sectors."""
    return size_bytes - size_bytes % SECTOR_BYTES
