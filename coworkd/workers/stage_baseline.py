"""The baseline: what each entry of a source was when its stage began to hold changes. By it a commit knows a conflict.

File `baseline`: the magic line; `<BQ`: complete, number of entries; one offset (`<Q`) for each; then the records: `Ident` (37 bytes), the
path's length (`<H`), the path. Sorted by `walk_key`, so that a look-up is a bisection in the mapped file and costs no memory.

Rules
- It is written whole beside the old one and renamed over it; a crash leaves the old one or none.
- At most `ENTRY_LIMIT` entries are kept, the first of a walk; a path that is not in an incomplete baseline is `UNKNOWN`.
- So is an entry that was changed after the stage began and before it was looked at (37 bytes 0xFF): nobody knows what the session saw.

What is `UNKNOWN` is judged by its ctime against the stage's beginning.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, Literal

from coworkd.workers.stage_entries import IDENT_BYTES, Ident, ident_of, unpack, walk_key
from coworkd.workers.stage_tree import Tree

ENTRY_LIMIT = 500_000
PATH_LIMIT_BYTES = 0xFFFF
"""The longest path that a record can have; one that is longer is `UNKNOWN`."""
UNKNOWN: Final = "unknown"
Was = Ident | None | Literal["unknown"]
"""What an entry was: None where it was not there."""
_MAGIC = b"coworkd-baseline 1\n"
_HEAD = struct.Struct("<BQ")
_OFFSET = struct.Struct("<Q")
_LENGTH = struct.Struct("<H")
_NOBODY_KNOWS = b"\xff" * IDENT_BYTES


def take_baseline(
    source: Tree, stage_fd: int, *, began_ns: int, step: Callable[[bytes], None], limit: int = ENTRY_LIMIT
) -> tuple[int, bool]:
    """Write the baseline of `source` into the stage; how many entries it has, and whether those are all.

    `step` is called with each path. Raises `OSError`: of the stage's disk, or where a directory of the source cannot be read.
    """
    records: list[tuple[bytes, bytes]] = []
    complete = True
    for path, found in source.below(b""):
        step(path)
        if len(records) >= limit:
            complete = False
            break
        if len(path) > PATH_LIMIT_BYTES:
            complete = False
            continue
        ident = ident_of(found).pack() if found.st_ctime_ns <= began_ns else _NOBODY_KNOWS
        records.append((walk_key(path), ident + _LENGTH.pack(len(path)) + path))
    records.sort()
    _write(stage_fd, [record for _, record in records], complete)
    return len(records), complete


def _write(stage_fd: int, records: list[bytes], complete: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    # A name of its own: an earlier worker that was given up may still be writing.
    fresh = f"baseline.{os.getpid()}"
    fd = os.open(fresh, flags, 0o600, dir_fd=stage_fd)
    with open(fd, "wb", buffering=1 << 20) as file:
        file.write(_MAGIC + _HEAD.pack(complete, len(records)))
        offset = len(_MAGIC) + _HEAD.size + len(records) * _OFFSET.size
        for record in records:
            file.write(_OFFSET.pack(offset))
            offset += len(record)
        file.writelines(records)
        file.flush()
        os.fsync(fd)
    os.rename(fresh, "baseline", src_dir_fd=stage_fd, dst_dir_fd=stage_fd)
    os.fsync(stage_fd)


class Baseline:
    """A baseline as it was taken. `close` it."""

    def __init__(self, mapped: mmap.mmap | None) -> None:
        self._mapped = mapped
        self._complete = False
        self._count = 0
        if mapped is None:
            return
        try:
            complete, count = _HEAD.unpack_from(mapped, len(_MAGIC))
        except struct.error:
            return
        self._offsets = len(_MAGIC) + _HEAD.size
        if mapped[: len(_MAGIC)] == _MAGIC and self._offsets + count * _OFFSET.size <= len(mapped):
            self._complete, self._count = bool(complete), count

    @classmethod
    def open(cls, stage_fd: int) -> Baseline:
        """The stage's baseline; one that is not there, or is none of ours, knows nothing."""
        try:
            fd = os.open("baseline", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage_fd)
        except FileNotFoundError:
            return cls(None)
        try:
            with contextlib.suppress(ValueError):  # an empty file cannot be mapped
                return cls(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
            return cls(None)
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
        self._count = 0

    def find(self, path: bytes) -> Was:
        """What `path` was."""
        key = walk_key(path)
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            found, ident = self._record(middle)
            if found == key:
                return ident
            if found < key:
                low = middle + 1
            else:
                high = middle
        return None if self._complete else UNKNOWN

    def paths(self) -> Iterator[bytes]:
        """Every path that it has."""
        for number in range(self._count):
            key, _ = self._record(number)
            yield key.replace(b"\0", b"/")

    def _record(self, number: int) -> tuple[bytes, Was]:
        """The key and the ident of a record; a damaged one is `UNKNOWN`."""
        assert self._mapped is not None
        try:
            (offset,) = _OFFSET.unpack_from(self._mapped, self._offsets + number * _OFFSET.size)
            (length,) = _LENGTH.unpack_from(self._mapped, offset + IDENT_BYTES)
        except (struct.error, OverflowError):
            return b"", UNKNOWN
        begin = offset + IDENT_BYTES + _LENGTH.size
        key = walk_key(self._mapped[begin : begin + length])
        try:
            return key, unpack(self._mapped[offset : offset + IDENT_BYTES])
        except ValueError:
            return key, UNKNOWN
