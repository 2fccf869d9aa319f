"""How a guarded folder's file system is mounted: what fsconfig(2) is told, and what the mount may not do.

Rules
- The root is a directory. Everybody in the session's view may come in (`allow_other`), and the kernel itself checks the permission
  bits that the server shows (`default_permissions`), so no request of another user's ever reaches the server.
- What is mounted carries neither set-user-id bits nor devices.

It opens and mounts nothing: whoever does opens /dev/fuse, gives these options to fsopen("fuse"), and hands the descriptor to `serve`.
Source: mount.fuse(8), Documentation/filesystems/fuse.rst.
"""

from __future__ import annotations

import stat

from coworkd.system.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID

FILE_SYSTEM = "fuse"
DEVICE = b"/dev/fuse"
ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
"""For fsmount(2)."""


def plan_options(*, fuse_fd: int, root_mode: int) -> tuple[tuple[str, str | None], ...]:
    """Key and value of each option in order, for fsconfig(2): a value is FSCONFIG_SET_STRING, none is FSCONFIG_SET_FLAG.

    `root_mode` is `st_mode` of the source. Raises `ValueError` where that is no directory.
    """
    if not stat.S_ISDIR(root_mode):
        raise ValueError(f"the root of a guarded folder is a directory, not of mode {root_mode:o}")
    return (
        ("source", "coworkd-folder"),
        ("subtype", "coworkd"),
        ("fd", str(fuse_fd)),
        ("rootmode", f"{root_mode:o}"),
        ("user_id", "0"),
        ("group_id", "0"),
        ("allow_other", None),
        ("default_permissions", None),
    )
