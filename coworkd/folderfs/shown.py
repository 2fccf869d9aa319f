"""How a file looks in a guarded folder: the file's own facts, with the session as its owner.

Everything is shown as the session's, whoever owns it on the host: the kernel judges by these bits (`default_permissions`), and the server,
which works as the source's owner, is refused by the host's file system where the owner would be. Pure.
"""

from __future__ import annotations

import os

from coworkd.folderfs.fuse_words import ATTR, ATTR_HEAD, ENTRY_HEAD, ENTRY_TIMEOUT_S

_NS = 1_000_000_000
_WORD = (1 << 64) - 1
_SHORT = (1 << 32) - 1
SET_ID = 0o6000


class Shown:
    """For one session."""

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def compose_attr(self, found: os.stat_result) -> bytes:
        """struct fuse_attr."""
        accessed, accessed_ns = divmod(found.st_atime_ns, _NS)
        modified, modified_ns = divmod(found.st_mtime_ns, _NS)
        changed, changed_ns = divmod(found.st_ctime_ns, _NS)
        device = found.st_rdev
        return ATTR.pack(
            found.st_ino,
            found.st_size,
            found.st_blocks,
            accessed & _WORD,
            modified & _WORD,
            changed & _WORD,
            accessed_ns,
            modified_ns,
            changed_ns,
            found.st_mode,
            min(found.st_nlink, _SHORT),
            self._uid,
            self._gid,
            device and compose_device(device),
            found.st_blksize,
            0,
        )

    def compose_attr_out(self, found: os.stat_result) -> bytes:
        """struct fuse_attr_out."""
        return ATTR_HEAD.pack(ENTRY_TIMEOUT_S, 0, 0) + self.compose_attr(found)

    def compose_entry(self, node: int, found: os.stat_result) -> bytes:
        """struct fuse_entry_out."""
        return ENTRY_HEAD.pack(node, 0, ENTRY_TIMEOUT_S, ENTRY_TIMEOUT_S, 0, 0) + self.compose_attr(found)


def compose_device(device: int) -> int:
    """The kernel's 32-bit form of a device number."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12
