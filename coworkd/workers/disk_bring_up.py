"""Bringing the session disk up: what is mounted already, what is found, what is done about it. And the two verbs on one that is mounted.

Every way out is an answer: a reason where nothing was mounted, the steps in either case. Done twice, or after a crash anywhere on the way,
it comes to the same mount.

The directory below the mount point remembers that a disk was there (`HAD_DISK`): without it no other place is taken for the sessions' own,
where each of them would be made anew, to be hidden again by the disk when that is back.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from coworkd.model import disk
from coworkd.system import discard, loop_devices, mounts
from coworkd.system.block_devices import size_of
from coworkd.system.mountinfo import MountEntry, mounted_at, read_mounts
from coworkd.workers.disk_choice import Refused, describe, plan, plan_content
from coworkd.workers.disk_steps import (
    Steps,
    check_device,
    format_device,
    grow_mounted,
    grow_unmounted,
    may_grow_mounted,
    mount_device,
    read_superblock,
)
from coworkd.workers.disk_target import Target, find_disk, fit_loop_file, look_at_loop_file, open_disk, open_loop

HAD_DISK = b".had-disk"
_WITHOUT = "attach it, or set storage.kind to directory to begin without them"
_UNHEALTHY = ("ro", "emergency_ro", "shutdown")


def bring_up(ask: disk.BringUp) -> disk.BroughtUp:
    """See `model.disk.BringUp`. Never raises: what is in the way is the answer's reason."""
    steps = Steps()
    kind: disk.DiskKind = "loop" if ask.kind == "loop" else "disk"
    try:
        return _bring_up(ask, kind, steps)
    except Refused as refused:
        reason, none_there = refused.reason, refused.none_there
    except OSError as error:
        reason, none_there = error.strerror or str(error), False
    if none_there and ask.kind == "auto" and had_disk(ask.mount_point):
        reason, none_there = f"{reason}; sessions lie on a disk that was here before: {_WITHOUT}", False
    return disk.BroughtUp(
        id=ask.id,
        state="absent",
        reason=reason,
        kind=kind,
        none_there=none_there,
        steps=tuple(steps.done),
        report=steps.report,
    )


def find(ask: disk.BringUp) -> disk.DiskFound:
    """Whether there is now what `bring_up` would mount. Never raises."""
    try:
        if ask.kind == "loop":
            plan_content(look_at_loop_file(ask), os.fsdecode(ask.loop_file))
            return disk.DiskFound(id=0, found=True, detail=os.fsdecode(ask.loop_file))
        found = find_disk(ask)
        plan(found)
        return disk.DiskFound(id=0, found=True, detail=f"{found.disk.name}: {describe(found.content)}")
    except Refused as refused:
        return disk.DiskFound(id=0, found=False, detail=refused.reason)
    except OSError as error:
        return disk.DiskFound(id=0, found=False, detail=error.strerror or str(error))


def trim(mount_point: bytes) -> int:
    """How many bytes the device was told are free. Raises `OSError`."""
    fd = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return discard.trim(fd)
    finally:
        os.close(fd)


def grow(mount_point: bytes, size: int | None) -> tuple[int, int]:
    """The size before and after. Raises `OSError`, ENOSPC where a loop file's own file system has no room for it."""
    entry = mounted_at(mount_point, read_mounts())
    if entry is None:
        raise OSError(errno.ENODEV, f"nothing is mounted on {os.fsdecode(mount_point)}")
    path = device_path(entry.device)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if size:
            _grow_loop_file(fd, path, size)
        return grow_mounted(fd, path, Steps())
    finally:
        os.close(fd)


def device_path(number: int, sys: str = "/sys") -> str:
    """The node of a mounted device. Raises `OSError`."""
    place = os.path.realpath(f"{sys}/dev/block/{os.major(number)}:{os.minor(number)}", strict=True)
    return f"/dev/{os.path.basename(place).replace('!', '/')}"


def _bring_up(ask: disk.BringUp, kind: disk.DiskKind, steps: Steps) -> disk.BroughtUp:
    entry = mounted_at(ask.mount_point, read_mounts())
    if entry is not None:
        adopted = _adopt(ask, kind, entry, steps)
        if adopted is not None:
            return adopted
    opening: Callable[[disk.BringUp, Steps], AbstractContextManager[Target]]
    opening = open_loop if kind == "loop" else open_disk
    with opening(ask, steps) as target:
        return _mount(ask, kind, target, steps)


def _mount(ask: disk.BringUp, kind: disk.DiskKind, target: Target, steps: Steps) -> disk.BroughtUp:
    fresh = target.plan.action == "format"
    if fresh:
        format_device(
            target.fd,
            target.path,
            target.size_bytes,
            label=ask.label,
            reserve_percent=ask.reserve_percent,
            steps=steps,
        )
    else:
        check_device(target.fd, target.path, backup=target.plan.backup, steps=steps)
    notes = list(target.notes)
    if not fresh and not may_grow_mounted():
        notes += _tell_failure(target, partial(grow_unmounted, target.fd, target.path, steps))
    superblock = read_superblock(target.fd)
    if superblock is None or superblock.label != ask.label:
        raise Refused(f"{target.path} is not ours any more after its check; see its report")
    notes += _prepare_below(ask, kind)
    quota = mount_device(target.path, ask.mount_point, superblock, steps)
    if fresh:
        os.chmod(ask.mount_point, 0o711)  # noqa: S103 (homes are 0700, and are reached through it)
    if may_grow_mounted():
        notes += _tell_failure(target, partial(grow_mounted, target.fd, target.path, steps))
    if steps.report:
        notes.append(
            f"{target.path} was damaged and has been repaired; what was done is in the state directory, in fsck/"
        )
    return disk.BroughtUp(
        id=ask.id,
        state="ok",
        reason="; ".join(notes),
        kind=kind,
        device=os.fsencode(target.path),
        uuid=superblock.uuid,
        quota=quota,
        steps=tuple(steps.done),
        report=steps.report,
    )


def had_disk(mount_point: bytes) -> bool:
    """Whether this directory has ever been covered by a session disk."""
    return os.path.lexists(os.path.join(mount_point, HAD_DISK))


def _prepare_below(ask: disk.BringUp, kind: disk.DiskKind) -> list[str]:
    """Remember the disk, and say what it is about to hide."""
    try:
        os.makedirs(ask.mount_point, 0o711, exist_ok=True)
        hidden = [name for name in os.listdir(ask.mount_point) if not name.startswith(b".") and name != b"lost+found"]
    except OSError:  # the mount says what is wrong
        return []
    if kind == "disk":
        with contextlib.suppress(OSError):  # a root file system that nobody can write to forgets
            os.close(os.open(os.path.join(ask.mount_point, HAD_DISK), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    if not hidden:
        return []
    place = os.fsdecode(ask.mount_point)
    return [f"{len(hidden)} sessions that lie in {place} are hidden by the disk that is mounted on it"]


def _tell_failure(target: Target, grow: Callable[[], object]) -> list[str]:
    """One that cannot grow is as good as it was."""
    try:
        grow()
    except OSError as error:
        return [f"{target.path} could not be grown: {error.strerror}"]
    return []


def _adopt(ask: disk.BringUp, kind: disk.DiskKind, entry: MountEntry, steps: Steps) -> disk.BroughtUp | None:
    """The answer where the session disk is mounted already; None where it was, and is not any more: one that has failed is mounted anew,
    unless it is in use. Raises `Refused` for what is somebody else's.
    """
    path = _own_path(ask, kind, entry)
    if not any(word in _UNHEALTHY for word in (*entry.super_options, *entry.options)) and os.path.exists(path):
        steps.done.append(disk.DiskStep(name="found mounted", took_s=0.0, detail=path))
        return _adopted(ask, kind, entry, path, steps)
    with steps.step("unmount", detail=f"{path} has failed"):
        try:
            mounts.umount(ask.mount_point)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return _adopted(ask, kind, entry, path, steps)
    return None


def _adopted(ask: disk.BringUp, kind: disk.DiskKind, entry: MountEntry, path: str, steps: Steps) -> disk.BroughtUp:
    return disk.BroughtUp(
        id=ask.id,
        state="ok",
        kind=kind,
        device=os.fsencode(path),
        quota="prjquota" in entry.super_options,
        steps=tuple(steps.done),
    )


def _own_path(ask: disk.BringUp, kind: disk.DiskKind, entry: MountEntry) -> str:
    """The device of a mount that is the session disk's. Raises `Refused` for any other."""
    place = os.fsdecode(ask.mount_point)
    other = f"{os.fsdecode(entry.source)} ({entry.kind}) is mounted on {place} already"
    # A directory that an administrator has given a file system of its own is as good as any for `auto`.
    foreign = Refused(other, none_there=ask.kind == "auto")
    if entry.kind != "ext4" or entry.root != b"/":
        raise foreign
    try:
        path = device_path(entry.device)
        if kind == "loop":
            wanted = os.stat(ask.loop_file)
            if loop_devices.backing(path) != (wanted.st_dev, wanted.st_ino):
                raise foreign
            return path
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # the device has gone; what it was shows by where it was mounted, and it is unmounted either way
        return os.fsdecode(entry.source)
    try:
        superblock = read_superblock(fd)
    finally:
        os.close(fd)
    if superblock is None or superblock.label != ask.label:
        raise foreign
    return path


def _grow_loop_file(fd: int, path: str, size: int) -> None:
    name = os.path.basename(path)
    try:
        with open(f"/sys/block/{name}/loop/backing_file", "rb") as file:
            backing_path = file.read().rstrip(b"\n")
    except FileNotFoundError as error:
        raise OSError(errno.EINVAL, f"{path} is no loop device: it grows on the host") from error
    file_fd = os.open(backing_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found, host = os.fstat(file_fd), os.fstatvfs(file_fd)
        if (found.st_dev, found.st_ino) != loop_devices.backing(path):
            raise OSError(errno.ESTALE, f"{os.fsdecode(backing_path)} is not the file below {path} any more")
        if size < found.st_size:
            raise OSError(errno.EINVAL, f"the loop file has {found.st_size} bytes, and never shrinks")
        if size - found.st_size > host.f_bavail * host.f_frsize:
            free = host.f_bavail * host.f_frsize
            raise OSError(errno.ENOSPC, f"the file system of the loop file has only {free} bytes free")
        fit_loop_file(file_fd, os.fsdecode(backing_path), size, Steps())
        loop_devices.set_capacity(fd)
        if size_of(fd) < loop_devices.whole_sectors(size):
            raise OSError(errno.EIO, f"{path} did not take the new size of its file")
    finally:
        os.close(file_fd)
