"""The audit log as of one moment, for readers that go on while more is written.

Open descriptors and durable sizes, taken while nothing is being written: what a reader sees never ends in half a
record, and files dropped meanwhile stay readable. Reads are pread(2) in blocks: a reader holds one block and one line.

Blocking; for worker threads. It does not judge what it reads (`auditlog.verify` does).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import Struct

from coworkd.auditlog.chain import Head, Tail, read_tail

BLOCK_BYTES = 64 * 1024
TAIL_WINDOW_BYTES = 1024 * 1024


class Snapshot(Struct, frozen=True, kw_only=True):
    """The log as of one moment: each file's name, open descriptor and durable bytes, oldest file first.

    Whoever took it calls `close`. Files dropped meanwhile stay readable through it.
    """

    head: Head
    files: tuple[tuple[str, int, int], ...]

    def chunks(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Names with their content, oldest first."""
        for name, fd, size in self.files:
            yield name, read_forwards(fd, size)

    def lines_backwards(self) -> Iterator[bytes]:
        """Every line with its LF, newest first."""
        for _, fd, size in reversed(self.files):
            yield from read_backwards(fd, size)

    def close(self) -> None:
        for _, fd, _ in self.files:
            os.close(fd)


def read_forwards(fd: int, size: int, offset: int = 0) -> Iterator[bytes]:
    """The bytes from `offset` to `size` in blocks; fewer where the file is shorter by now."""
    while offset < size:
        block = os.pread(fd, min(BLOCK_BYTES, size - offset), offset)
        if not block:
            return
        offset += len(block)
        yield block


def read_backwards(fd: int, size: int) -> Iterator[bytes]:
    """The lines of the first `size` bytes, each with its LF, last one first."""
    rest = b""
    offset = size
    while offset > 0:
        length = min(BLOCK_BYTES, offset)
        offset -= length
        rest, *lines = (os.pread(fd, length, offset) + rest).split(b"\n")
        for line in reversed(lines):
            if line:
                yield line + b"\n"
    if rest:
        yield rest + b"\n"


def find_end(fd: int, size: int) -> Tail:
    """Judge the end of a file; the whole of it is read only where its last MiB holds no record."""
    start = max(0, size - TAIL_WINDOW_BYTES)
    end = read_tail(b"".join(read_forwards(fd, size, start)))
    if start and end.head is None:
        start = 0
        end = read_tail(b"".join(read_forwards(fd, size)))
    return Tail(
        keep_bytes=start + end.keep_bytes,
        torn_bytes=end.torn_bytes,
        head=end.head,
        broken=end.broken,
    )
