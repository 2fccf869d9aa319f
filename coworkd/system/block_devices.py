"""Block devices as sysfs tells them, and the two questions that only the device itself answers.

`read_disks` sees whole disks alone: loop, RAM, device-mapper, RAID, CD and floppy devices are no disks that anybody attaches for us.
A serial number stands in one of three places, by bus: `serial` (virtio), `device/serial` (NVMe), `device/vpd_pg80` (SCSI: a four-byte
head, then text, padded with spaces).

Sources: sysfs(5), the kernel's Documentation/ABI/stable/sysfs-block, blockdev ioctls in <linux/fs.h>.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct

from msgspec import Struct

SECTOR_BYTES = 512
_BLKGETSIZE64 = 0x80081272
_NO_DISKS = re.compile(r"(loop|ram|zram|dm-|md|sr|fd|nbd|mtd)")


class Disk(Struct, frozen=True, kw_only=True):
    """A whole disk. `users` names what lies on it in the kernel's eyes: its partitions, and devices made of it."""

    name: str
    path: bytes
    number: int
    size_bytes: int
    serial: str
    read_only: bool
    removable: bool
    users: tuple[str, ...]


def read_disks(sys: str = "/sys", dev: str = "/dev") -> list[Disk]:
    """Every disk with a medium, by name. One that goes away meanwhile is left out."""
    found = []
    for name in sorted(os.listdir(f"{sys}/block")):
        if _NO_DISKS.match(name):
            continue
        with contextlib.suppress(OSError, ValueError):
            disk = read_disk(name, sys, dev)
            if disk.size_bytes:
                found.append(disk)
    return found


def read_disk(name: str, sys: str = "/sys", dev: str = "/dev") -> Disk:
    """One device of /sys/block, of any kind. Raises `OSError`, `ValueError`."""
    place = f"{sys}/block/{name}"
    major, _, minor = _read(f"{place}/dev").partition(":")
    # A slash in a name is an exclamation mark in sysfs (cciss!c0d0).
    path = os.path.join(dev, name.replace("!", "/"))
    return Disk(
        name=name,
        path=os.fsencode(path),
        number=os.makedev(int(major), int(minor)),
        size_bytes=int(_read(f"{place}/size")) * SECTOR_BYTES,
        serial=_serial(place),
        read_only=_read(f"{place}/ro") == "1",
        removable=_read(f"{place}/removable") == "1",
        users=(*_partitions(place, name), *_holders(place)),
    )


def disks_below(number: int, sys: str = "/sys") -> frozenset[str]:
    """The names of the disks that the device `number` lies on: its own, that of a partition, those of a device-mapper's."""
    try:
        place = os.path.realpath(f"{sys}/dev/block/{os.major(number)}:{os.minor(number)}", strict=True)
    except OSError:
        return frozenset()
    if os.path.exists(f"{place}/partition"):
        place = os.path.dirname(place)
    slaves = f"{place}/slaves"
    below = {os.path.basename(place)}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(slaves):
            major, _, minor = _read(f"{slaves}/{name}/dev").partition(":")
            below |= disks_below(os.makedev(int(major), int(minor)), sys)
    return frozenset(below)


def size_of(fd: int) -> int:
    """The size in bytes of the block device, or the plain file, `fd`. Raises `OSError`."""
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        return os.fstat(fd).st_size
    record = bytearray(8)
    fcntl.ioctl(fd, _BLKGETSIZE64, record)
    return int(struct.unpack("=Q", record)[0])


def _serial(place: str) -> str:
    for name in ("serial", "device/serial"):
        with contextlib.suppress(OSError):
            serial = _read(f"{place}/{name}")
            if serial:
                return serial
    with contextlib.suppress(OSError), open(f"{place}/device/vpd_pg80", "rb") as file:
        return file.read(260)[4:].decode("ascii", "replace").strip(" \0")
    return ""


def _partitions(place: str, name: str) -> list[str]:
    return sorted(
        entry for entry in os.listdir(place) if entry.startswith(name) and os.path.exists(f"{place}/{entry}/partition")
    )


def _holders(place: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(f"{place}/holders"))
    return []


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()
