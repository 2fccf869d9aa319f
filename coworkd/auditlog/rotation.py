"""Rotation: how files are named, and which may be dropped.

Layout of the directory (0700; every file 0600, root)

    audit-00000000000000000001.jsonl    named by the `seq` of its first record: order of names is order of records
    audit-00000000000000004711.jsonl    the newest; the only one that is written
    reserve                             blocks kept for the day the disk is full

Rules: only whole files are dropped, oldest first, never the newest two; before one goes, a durable `audit.dropped`
record names the `seq` and hash of the first record kept, so a log which does not begin with 1 still proves itself.

Pure: names and sizes in, names out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

RESERVE_NAME = "reserve"

_NAME = re.compile(r"audit-([0-9]{20})\.jsonl\Z")


class RotationLimits(Struct, frozen=True, kw_only=True):
    """Bounds in bytes. A file may pass `file_bytes` by one batch, the whole log `total_bytes` by one file."""

    file_bytes: int = 8 * 1024 * 1024
    total_bytes: int = 64 * 1024 * 1024
    reserve_bytes: int = 1024 * 1024


def compose_name(first_seq: int) -> str:
    """The name of the file whose first record has this `seq`."""
    return f"audit-{first_seq:020d}.jsonl"


def parse_name(name: str) -> int | None:
    """The `seq` a file's first record must have, None for what is not a file of the log."""
    match = _NAME.match(name)
    return int(match[1]) if match else None


def log_files(names: Iterable[str]) -> list[str]:
    """The files of the log among `names`, oldest first."""
    return sorted(name for name in names if parse_name(name) is not None)


def plan_drops(files: Sequence[tuple[str, int]], total_bytes: int) -> list[str]:
    """Which of `files` (name, size in bytes; oldest first) must go so that the rest fits.

    The newest two always stay: the newest is empty after a rotation, so it has no first record to be named by.
    """
    left = sum(size for _, size in files)
    drops: list[str] = []
    for name, size in files[:-2]:
        if left <= total_bytes:
            break
        drops.append(name)
        left -= size
    return drops
