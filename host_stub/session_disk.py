"""The session disk of a bundle: made once, grown, never shrunk, never replaced.

Rules
- What is on it is the user's work. It is made blank where none ever was (the guest formats what is blank), and only when that is
  asked for: one that is gone is a trouble that is told, not an empty disk in its place.
- It is sparse: it takes the room that is used. Its size is the size of the file, and nothing else keeps it.
- Growing is one ftruncate(2): after a power cut the disk has the old size or the new one. The guest's file system grows at its next start,
  or at once by `storage.grow`.

Not here: what is on the disk. Blocking.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from host_stub.bundle_files import shown_bytes, sync_directory, telling
from host_stub.words import Trouble

FILE_NAME = "sessions.img"
DEFAULT_BYTES = 10 << 30
MIN_BYTES = 64 << 20
MAX_BYTES = 1 << 44
STEP_BYTES = 1 << 20
"""Sizes are whole MiB: every back end and every block size goes into it."""


class SessionDisk(NamedTuple):
    """What there is: how large the guest sees it, and how much room it takes here."""

    size_bytes: int
    used_bytes: int


def create(path: Path, size_bytes: int) -> None:
    """Make a blank disk where there is none. Raises `Trouble` (`session_disk_there`, `bad_size`, `no_space` …)."""
    _check_size(size_bytes)
    with telling("making", path):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Trouble(
                "session_disk_there",
                f"{path} is there already",
                remedy="keep it: sessions are on it; `grow` makes it larger",
            ) from None
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
            sync_directory(path.parent)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)


def look_at(path: Path) -> SessionDisk:
    """Size and use of the disk. Raises `Trouble` (`no_session_disk`, `bad_session_disk`)."""
    with telling("looking at", path):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            raise Trouble(
                "no_session_disk",
                f"the session disk {path} is gone, and with it all sessions that were on it",
                remedy="put it back from where it went, or start with an empty one: cowork-vm up --new-session-disk",
            ) from None
    if not stat.S_ISREG(found.st_mode):
        raise Trouble("bad_session_disk", f"{path} is no plain file", remedy="put the session disk back as a file")
    if found.st_size < MIN_BYTES:
        raise Trouble(
            "bad_session_disk",
            f"the session disk {path} has only {shown_bytes(found.st_size)}: it was cut off",
            remedy="put it back from a copy; or move it away and use cowork-vm up --new-session-disk",
        )
    return SessionDisk(found.st_size, found.st_blocks * 512)


def grow(path: Path, size_bytes: int) -> SessionDisk:
    """Give the disk of a machine that does not run `size_bytes`. Raises `Trouble` (`would_shrink` …); the same size is no error."""
    check_growth(path, size_bytes)
    with telling("growing", path):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
    return look_at(path)


def check_growth(path: Path, size_bytes: int) -> None:
    """Raise `Trouble` where `size_bytes` is no size to grow to."""
    _check_size(size_bytes)
    there = look_at(path)
    if size_bytes < there.size_bytes:
        raise Trouble(
            "would_shrink",
            f"the session disk has {shown_bytes(there.size_bytes)} already, and {shown_bytes(size_bytes)} is less",
            remedy="a session disk is never made smaller: name a larger size",
        )


def _check_size(size_bytes: int) -> None:
    if size_bytes % STEP_BYTES or not MIN_BYTES <= size_bytes <= MAX_BYTES:
        raise Trouble(
            "bad_size",
            f"{size_bytes} bytes is no size for a session disk",
            remedy=f"use whole MiB from {shown_bytes(MIN_BYTES)} to {shown_bytes(MAX_BYTES)}, such as 20G",
        )
