"""Whether two files hold the same, and what a file's content hashes to: where both have holes nothing is read.

Sources: lseek(2), SEEK_DATA. A file system without it tells everything as data, and then everything is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable

CHUNK_BYTES = 1024 * 1024


def next_data(fd: int, offset: int, size: int) -> int:
    """Where the next data at or behind `offset` begins; `size` where there is none."""
    try:
        return min(os.lseek(fd, offset, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        return offset


def end_of_data(fd: int, offset: int, size: int) -> int:
    """Where the data that begins at `offset` ends."""
    try:
        return min(os.lseek(fd, offset, os.SEEK_HOLE), size)
    except OSError:
        return size


def same_content(one: int, other: int, size: int, step: Callable[[bytes], None]) -> bool:
    """Compare the first `size` bytes of two files; `step` is called for each MiB. Raises `OSError`."""
    offset = 0
    while True:
        offset = min(next_data(one, offset, size), next_data(other, offset, size))
        if offset >= size:
            return True
        length = min(CHUNK_BYTES, size - offset)
        if _read(one, length, offset) != _read(other, length, offset):
            return False
        offset += length
        step(b"")


def content_hash(fd: int, size: int, step: Callable[[bytes], None]) -> bytes:
    """SHA-256 of the content. Raises `OSError`."""
    summed = hashlib.sha256()
    offset = 0
    while offset < size:
        data = _read(fd, CHUNK_BYTES, offset)
        summed.update(data)
        if not data:
            break
        offset += len(data)
        step(b"")
    return summed.digest()


def _read(fd: int, length: int, offset: int) -> bytes:
    """Exactly `length` bytes, but at the end of the file."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
