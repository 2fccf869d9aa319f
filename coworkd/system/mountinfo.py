"""/proc/self/mountinfo, parsed: what is mounted where, and how it is now. Source: proc_pid_mountinfo(5).

A path in it has its spaces, tabs, newlines and backslashes as octal escapes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from msgspec import Struct

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class MountEntry(Struct, frozen=True, kw_only=True):
    """One line. `root` is the path in the file system that is seen at `mount_point`.

    `options` are the mount's own, `super_options` those of the file system below all its mounts.
    """

    mount_id: int
    device: int
    root: bytes
    mount_point: bytes
    options: tuple[str, ...]
    kind: str
    source: bytes
    super_options: tuple[str, ...]


def read_mounts(path: str = "/proc/self/mountinfo") -> list[MountEntry]:
    """Every mount of this namespace, in the order of mounting. Raises `OSError`."""
    with open(path, "rb") as file:
        return parse_mounts(file)


def parse_mounts(lines: Iterable[bytes]) -> list[MountEntry]:
    """What the lines tell; optional fields, of which there is any number, end with a lone dash."""
    found = []
    for line in lines:
        words = line.split()
        dash = words.index(b"-", 6)
        major, _, minor = words[2].partition(b":")
        found.append(
            MountEntry(
                mount_id=int(words[0]),
                device=os.makedev(int(major), int(minor)),
                root=_unescape(words[3]),
                mount_point=_unescape(words[4]),
                options=tuple(words[5].decode("ascii", "replace").split(",")),
                kind=words[dash + 1].decode("ascii", "replace"),
                source=_unescape(words[dash + 2]),
                super_options=tuple(words[dash + 3].decode("ascii", "replace").split(",")),
            )
        )
    return found


def mounted_at(mount_point: bytes, mounts: Iterable[MountEntry]) -> MountEntry | None:
    """The topmost mount on exactly this place; None where nothing is mounted there."""
    return next((entry for entry in reversed(list(mounts)) if entry.mount_point == mount_point), None)


def mount_id(fd: int) -> int:
    """Of the mount that `fd` was opened in. Raises `OSError`. Source: proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"mnt_id:"))


def path_in_file_system(path: str, entry: MountEntry) -> bytes | None:
    """Where `path`, a file below that mount, lies in its file system; None if it does not lie there."""
    above, place = entry.mount_point.rstrip(b"/"), os.fsencode(path)
    if place != entry.mount_point and not place.startswith(above + b"/"):
        return None
    return (entry.root.rstrip(b"/") + place[len(above) :]).rstrip(b"/") or b"/"


def _unescape(word: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), word)
