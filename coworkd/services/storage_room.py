"""How full the session disk is, and when that is said: marks at 80, 90 and 95 percent, with hysteresis.

Bytes and inodes count alike: the fuller one decides. A mark that was passed is taken back only when the disk is `SLACK` percent below
it, so that one file more or less does not make an event each.
"""

from __future__ import annotations

import os

from msgspec import Struct

MARKS = (80, 90, 95)
SLACK = 3


class Room(Struct, frozen=True, kw_only=True):
    """What statvfs(3) tells of a file system; `free_bytes` is what sessions may still take."""

    size_bytes: int
    free_bytes: int
    reserved_bytes: int
    inodes: int
    inodes_free: int
    read_only: bool

    @property
    def used_bytes(self) -> int:
        return self.size_bytes - self.free_bytes - self.reserved_bytes

    @property
    def used_percent(self) -> float:
        """Of what sessions may have, of bytes or of inodes, whichever is nearer its end."""
        bytes_there = self.used_bytes + self.free_bytes
        by_bytes = 100 * self.used_bytes / bytes_there if bytes_there else 100.0
        by_inodes = 100 * (self.inodes - self.inodes_free) / self.inodes if self.inodes else 0.0
        return max(by_bytes, by_inodes)


def read_room(path: str) -> Room:
    """Blocking, for a worker thread; never on a share. Raises `OSError`."""
    found = os.statvfs(path)
    return Room(
        size_bytes=found.f_blocks * found.f_frsize,
        free_bytes=found.f_bavail * found.f_frsize,
        reserved_bytes=(found.f_bfree - found.f_bavail) * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_favail,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def next_mark(mark: int, used_percent: float) -> int:
    """The mark that holds now, 0 for none, where `mark` held before."""
    passed = max((at for at in MARKS if used_percent >= at), default=0)
    kept = max((at for at in MARKS if at <= mark and used_percent > at - SLACK), default=0)
    return max(passed, kept)
