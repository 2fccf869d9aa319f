"""Where no folder is: the kernel's own file systems, and directories of coworkd's own, whatever name leads to them.

Rules
- The supervisor judges names. What a bind mount, or a disk that is mounted twice, calls otherwise shows only here: by the file system and
  the path in it, as the kernel tells of the descriptor that was found.
- A directory of our own that is not there keeps nothing out. What cannot be told is refused.

Sources: fstatfs(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os

from coworkd.launcher.errand import ErrandError
from coworkd.system import file_system, mountinfo


def refuse_walled(found: int, apart_from: tuple[bytes, ...]) -> None:
    """Raise `ErrandError` (EPERM) where `found` is no place for a folder; `apart_from` are our own directories."""
    if file_system.is_kernels(found):
        raise ErrandError("source", errno.EPERM, "it lies on a file system of the kernel's own; that is never shared")
    if not apart_from:
        return
    mounts = {entry.mount_id: entry for entry in mountinfo.read_mounts()}
    device, path = _locate(found, mounts)
    for own in apart_from:
        try:
            directory = os.open(own, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            own_device, own_path = _locate(directory, mounts)
        finally:
            os.close(directory)
        if device == own_device and (_contains(own_path, path) or _contains(path, own_path)):
            raise ErrandError(
                "source", errno.EPERM, f"it and {os.fsdecode(own)} lie in each other; that is never shared"
            )


def _locate(fd: int, mounts: dict[int, mountinfo.MountEntry]) -> tuple[int, bytes]:
    """Its file system, and where it lies in that."""
    entry = mounts.get(mountinfo.mount_id(fd))
    place = None if entry is None else mountinfo.path_in_file_system(os.readlink(f"/proc/self/fd/{fd}"), entry)
    if entry is None or place is None:
        raise ErrandError("source", errno.ESTALE, "where it lies cannot be told; ask again")
    return entry.device, place


def _contains(outer: bytes, inner: bytes) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(b"/") + b"/")
