"""What has become of single entries of a source since its baseline was taken, through commits of ours: a log that only grows.

File `since`: records of crc32 (`<I`, of all behind it), `Ident` (37 bytes; 37 of 0xFE where the entry is gone), the path's length (`<H`),
the path. A later record of a path replaces an earlier one; reading ends at the first record that is not whole.

A record that is lost costs a conflict that is none, never one that is not seen: so neither a full disk nor a path that is too long for a
record is a reason to stop a commit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib

from coworkd.workers.stage_baseline import PATH_LIMIT_BYTES, Baseline, Was
from coworkd.workers.stage_entries import IDENT_BYTES, Ident, unpack

_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<H")
_GONE = b"\xfe" * IDENT_BYTES
_FLUSH_BYTES = 64 * 1024
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class Since:
    """The log of one stage. `close` it; `sync` makes what was noted durable."""

    def __init__(self, stage_fd: int) -> None:
        self._fd = os.open("since", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=stage_fd)
        self._waiting = bytearray()
        self._known: dict[bytes, Ident | None] = {}
        self._end = self._read()

    def find(self, path: bytes, baseline: Baseline) -> Was:
        """What an entry of the source was when the session saw it last, as far as is known."""
        if path in self._known:
            return self._known[path]
        return baseline.find(path)

    def note(self, path: bytes, now: Ident | None) -> None:
        """From now on `path` is expected to be like this."""
        self._known[path] = now
        if len(path) > PATH_LIMIT_BYTES:
            return
        body = (_GONE if now is None else now.pack()) + _LENGTH.pack(len(path)) + path
        self._waiting += _CRC.pack(zlib.crc32(body)) + body
        if len(self._waiting) >= _FLUSH_BYTES:
            self._flush()

    def sync(self) -> None:
        """Raises `OSError`, but not for a full disk."""
        self._flush()
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _flush(self) -> None:
        waiting, self._waiting = bytes(self._waiting), bytearray()
        try:
            written = os.pwrite(self._fd, waiting, self._end)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return
        if written == len(waiting):
            self._end += written
        else:  # half of it would hide all that comes behind
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)

    def _read(self) -> int:
        """Take in what is whole; where it ends."""
        size = os.fstat(self._fd).st_size
        data = memoryview(os.pread(self._fd, size, 0))
        place = 0
        head = _CRC.size + IDENT_BYTES + _LENGTH.size
        while place + head <= len(data):
            (length,) = _LENGTH.unpack_from(data, place + _CRC.size + IDENT_BYTES)
            body = bytes(data[place + _CRC.size : place + head + length])
            if len(body) != head - _CRC.size + length or zlib.crc32(body) != _CRC.unpack_from(data, place)[0]:
                break
            ident = body[:IDENT_BYTES]
            try:
                self._known[body[IDENT_BYTES + _LENGTH.size :]] = None if ident == _GONE else unpack(ident)
            except ValueError:
                break
            place += head + length
        return place
