"""The update disk: found by its serial number or label, and mounted where nobody else sees it.

Rules
- Never a disk that is mounted, the root's or the sessions' by its serial number, one that somebody has open for himself (O_EXCL), or one
  larger than `LIMIT_BYTES`.
- A disk, or a partition of one. Read-only, no set-user-id bits, no devices, nothing to be executed.
- Five kinds of file system; any other is told. An ext4 is read as it stands, without its journal: what is read is hashed anyway.
- The mount is in a namespace of the caller's own, which must be a process that ends soon: its end unmounts as well.

Sources: mount(2), unshare(2), mount_namespaces(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from coworkd.model.disk import DISK_LABEL as SESSION_DISK_LABEL
from coworkd.release.refusal import ReleaseRefused
from coworkd.system import disk_tools, mounts, namespaces
from coworkd.system.block_devices import Disk, disks_below, read_disks, size_of
from coworkd.system.mountinfo import read_mounts

LIMIT_BYTES = 4 << 30
KINDS = ("exfat", "vfat", "ext4", "squashfs", "erofs")
_OTHERS = (SESSION_DISK_LABEL, "cowork-root")
"""Serial numbers of disks that are another's."""
_OPTIONS = {"ext4": b"noload"}
_FLAGS = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC


class UpdateDisk(Struct, frozen=True, kw_only=True):
    """`kind` as blkid calls it; empty where it knows none."""

    path: str
    kind: str


def find(label: str, device: str = "", *, sys: str = "/sys", dev: str = "/dev") -> UpdateDisk | None:
    """The one with that serial number, else that label; with `device` only that one. Raises `OSError`."""
    if device:
        return _named(device)
    taken = mounted_disks(sys)
    disks = [disk for disk in read_disks(sys, dev) if _may_be(disk, taken)]
    for disk in disks:
        if disk.serial == label:
            return next(_parts(disk, dev), None)
    for disk in disks:
        for part in _parts(disk, dev, label):
            return part
    return None


def may_be_there(*, sys: str = "/sys", dev: str = "/dev") -> bool:
    """A cheap look for whoever asks whether `find` is worth a process: nothing is opened and nothing run. Raises `OSError`."""
    taken = mounted_disks(sys)
    return any(_may_be(disk, taken) for disk in read_disks(sys, dev))


def mounted_disks(sys: str = "/sys", mountinfo: str = "/proc/self/mountinfo") -> frozenset[str]:
    """The names of the disks that something is mounted from, the root's among them: below an overlay it is nowhere else."""
    # A major number of 0 is what has no device.
    numbers = {entry.device for entry in read_mounts(mountinfo) if os.major(entry.device)}
    return frozenset().union(*(disks_below(number, sys) for number in numbers))


@contextlib.contextmanager
def mounted(disk: UpdateDisk, place: bytes) -> Iterator[None]:
    """It is at `place` inside, for this process alone. Raises `ReleaseRefused` for a disk of no known kind, `OSError`."""
    if disk.kind not in KINDS:
        said = f"holds {disk.kind}" if disk.kind else "holds no file system that is known"
        raise ReleaseRefused("unreadable", f"{disk.path} {said}; {', '.join(KINDS)} are read")
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(b"none", b"/", b"", mounts.MS_REC | mounts.MS_PRIVATE)
    os.makedirs(place, 0o755, exist_ok=True)
    try:
        mounts.mount(os.fsencode(disk.path), place, disk.kind.encode(), _FLAGS, _OPTIONS.get(disk.kind, b""))
    except OSError as error:
        hint = ": the kernel has no such file system" if error.errno == errno.ENODEV else ""
        raise ReleaseRefused("unreadable", f"{disk.path} cannot be mounted: {error.strerror}{hint}") from error
    try:
        yield
    finally:
        mounts.umount(place, mounts.UMOUNT_NOFOLLOW | mounts.MNT_DETACH)


def _may_be(disk: Disk, taken: frozenset[str]) -> bool:
    return disk.name not in taken and disk.serial not in _OTHERS and disk.size_bytes <= LIMIT_BYTES


def _parts(disk: Disk, dev: str, label: str | None = None) -> Iterator[UpdateDisk]:
    """The disk itself and its partitions, those that are free and, with a `label`, have it. One that goes meanwhile is left out."""
    for path in (os.fsdecode(disk.path), *(os.path.join(dev, name) for name in disk.users)):
        with contextlib.suppress(OSError):
            if not _is_free(path):
                continue
            signs = disk_tools.blkid(path)
            named = label is None or signs.get("LABEL", "").lower() == label.lower()
            if named and "TYPE" in signs:
                yield UpdateDisk(path=path, kind=signs["TYPE"])
            elif label is None and not disk.users:
                yield UpdateDisk(path=path, kind="")


def _is_free(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True


def _named(device: str) -> UpdateDisk | None:
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENOMEDIUM):
            return None
        raise
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTBLK, f"{device} is no block device")
        if size_of(fd) > LIMIT_BYTES:
            raise OSError(errno.EFBIG, f"{device} is larger than an update disk may be, {LIMIT_BYTES >> 30} GiB")
    finally:
        os.close(fd)
    return UpdateDisk(path=device, kind=disk_tools.blkid(device).get("TYPE", ""))
