"""Whether the session disk can be used now: facts of this moment, and what they mean.

Three things go wrong under a running coworkd: the file system becomes read-only by itself after an error, the device goes away or is
cut short, or somebody unmounts it. Each shows elsewhere first, so each is looked for: in the mount table, in sysfs, and by a write of
one block that is there already, which no full disk refuses.

Blocking, for a worker thread: a disk that hangs, hangs it, and nothing else. Sources: proc_pid_mountinfo(5), sysfs(5),
the kernel's fs/ext4/super.c for `emergency_ro`.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Literal

from msgspec import Struct

from coworkd.services.storage_reserve import FULL
from coworkd.services.storage_room import Room, read_room
from coworkd.system.mountinfo import MountEntry, mounted_at, read_mounts

_ALIVE = "alive"
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_READ_ONLY = ("ro", "emergency_ro", "shutdown")

Lack = Literal["gone", "read_only", "failing"]


class Facts(Struct, frozen=True, kw_only=True):
    """What was seen. `mount` and `device_bytes` are None where there is nothing to be seen."""

    mount: MountEntry | None
    device_bytes: int | None
    room: Room | None
    error: str = ""
    """Why the disk could not be asked or written; empty where it could."""
    blind: bool = False
    """We had no descriptor or no memory to look with: nothing is known, and nothing is wrong with the disk by that."""


class Problem(Struct, frozen=True, kw_only=True):
    """Why no session may stand on it. `gone`: another disk, or the same one anew, would have to be mounted."""

    lack: Lack
    reason: str


def look(mount_point: str, state_dir: str, *, is_mount: bool, sys: str = "/sys") -> Facts:
    """The facts of the disk at `mount_point`, or of the directory of that name; never raises."""
    mount: MountEntry | None = None
    size: int | None = None
    room: Room | None = None
    try:
        if is_mount:
            mount = mounted_at(os.fsencode(mount_point), read_mounts())
            size = None if mount is None else _device_bytes(mount.device, sys)
            if mount is None or size is None:
                return Facts(mount=mount, device_bytes=size, room=None)
        room = read_room(mount_point)
        try:
            _touch(state_dir)
        except OSError as error:
            if error.errno not in FULL:  # that is told by the room there is
                raise
    except OSError as error:
        words = error.strerror or str(error)
        return Facts(mount=mount, device_bytes=size, room=room, error=words, blind=error.errno in _OURS)
    return Facts(mount=mount, device_bytes=size, room=room)


def judge(facts: Facts, *, mounted: int | None) -> Problem | None:
    """What is wrong; None where nothing is. `mounted` is the device that was brought up, None for a directory."""
    if mounted is not None:
        problem = _judge_mount(facts, mounted)
        if problem is not None:
            return problem
    if facts.room is not None and facts.room.read_only:
        return Problem(lack="read_only", reason="the session disk is read-only")
    if facts.error:
        return Problem(lack="failing", reason=f"the session disk does not work: {facts.error}")
    return None


def _judge_mount(facts: Facts, mounted: int) -> Problem | None:
    mount = facts.mount
    if mount is None:
        return Problem(lack="gone", reason="the session disk is not mounted any more")
    if mount.device != mounted:
        return Problem(lack="gone", reason="something else is mounted over the session disk")
    if facts.device_bytes is None:
        return Problem(lack="gone", reason="the session disk has vanished: its device is gone")
    if facts.room is not None and facts.device_bytes < facts.room.size_bytes:
        reason = f"the session disk was cut short: its device has {facts.device_bytes} bytes now"
        return Problem(lack="gone", reason=f"{reason}, less than the file system on it")
    read_only = [word for word in _READ_ONLY if word in (*mount.super_options, *mount.options)]
    if read_only:
        reason = "the session disk has become read-only after an error"
        return Problem(lack="read_only", reason=f"{reason}; it is checked and repaired when it is mounted anew")
    return None


def is_there(device: int, sys: str = "/sys") -> bool:
    """Whether the device is still there, mounted or not; False too where we have no descriptor or memory to look with."""
    try:
        return _device_bytes(device, sys) is not None
    except OSError:
        return False


def _device_bytes(device: int, sys: str) -> int | None:
    """Its size as sysfs tells it; None where it has gone. A loop device that was taken off its file has 0. Raises `OSError` of `_OURS`."""
    try:
        with open(f"{sys}/dev/block/{os.major(device)}:{os.minor(device)}/size", encoding="ascii") as file:
            return int(file.read()) * 512 or None
    except ValueError:
        return None
    except OSError as error:
        if error.errno in _OURS:
            raise
        return None


def _touch(state_dir: str) -> None:
    """Write over one block and have it on the disk. Raises `OSError`; ENOSPC only before the block was there once."""
    fd = os.open(os.path.join(state_dir, _ALIVE), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, f"{time.time():.0f}\n".encode(), 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)
