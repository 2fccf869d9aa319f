"""What a folder's file system remembers of own names, over restarts: one file on the session disk.

Layout: frames one after the other, each a length and a CRC-32 of 4 bytes, little-endian, and a MessagePack record of that length.
Eight zero bytes are the beginning of a gap that ends at the next multiple of `BLOCK_BYTES`. A frame that is cut short or does not
match is the end.

Rules
- Each change is one frame, written before the request is answered, and outlives the server. It is not fsynced: after a power failure
  the last names may be the user's again. The reverse is not to be: a name is own only while inode and birth time are the recorded ones,
  and a frame that makes a name the user's while the same file stands there (`Disowned`) is durable before what comes of it.
- When most of it is waste, one record of all names is appended and made durable; then what lies before it is punched out. It is waste
  when it is `_WASTE` times as long as that record was, or would be by a guess.
- What cannot be written (a full disk) stays in memory alone and is written when there is room again; no request fails for it. Where what
  cannot be written makes a name the user's, the file is emptied: then all names would be his after a restart.

Source: fallocate(2), lseek(2) SEEK_DATA.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib

import msgspec
from msgspec import Struct

from coworkd.folderfs.names import Identity, OwnNames, Path
from coworkd.model.errors import UNDECODABLE
from coworkd.system import file_calls

BLOCK_BYTES = 4096
COMPACT_BYTES = 4 * 1024 * 1024
"""No shorter journal is compacted."""
_WASTE = 4
_RETRY_FRAMES = 256
_NAME_BYTES = 64
"""What a name takes in a record of all, guessed."""
_FRAME = struct.Struct("<II")
_READ_BYTES = 1024 * 1024


class Added(Struct, frozen=True, tag="add", array_like=True):
    path: Path
    own: Identity


class Removed(Struct, frozen=True, tag="remove", array_like=True):
    path: Path


class Disowned(Struct, frozen=True, tag="disown", array_like=True):
    path: Path


class Moved(Struct, frozen=True, tag="move", array_like=True):
    source: Path
    target: Path
    own: Identity | None


class Swapped(Struct, frozen=True, tag="swap", array_like=True):
    one: Path
    other: Path
    own_one: Identity | None
    own_other: Identity | None


class All(Struct, frozen=True, tag="all", array_like=True):
    """Every own name: what was said before does not count any more."""

    names: list[tuple[Path, Identity]]


Record = Added | Removed | Disowned | Moved | Swapped | All
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def compose_frame(record: Record) -> bytes:
    payload = _encoder.encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def apply(names: OwnNames, record: Record) -> OwnNames:
    """`names` after `record`; another object after `All`."""
    match record:
        case Added(path, own):
            names.add(path, own)
        case Removed(path):
            names.remove(path)
        case Disowned(path):
            names.disown(path)
        case Moved(source, target, own):
            names.move(source, target, own)
        case Swapped(one, other, own_one, own_other):
            names.swap(one, other, own_one, own_other)
        case All(all_names):
            names = OwnNames()
            for path, own in all_names:
                names.add(path, own)
    return names


def parse_journal(data: bytes, names: OwnNames) -> tuple[OwnNames, int]:
    """What the frames in `data` make of `names`, and where the last good one ends. Any bytes give an answer."""
    offset = 0
    while offset + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, offset)
        if not length:
            if checksum:
                break
            gap_end = (offset // BLOCK_BYTES + 1) * BLOCK_BYTES
            if data.count(0, offset, gap_end) != min(gap_end, len(data)) - offset:
                break
            offset = gap_end
            continue
        payload = data[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            break
        try:
            names = apply(names, _decoder.decode(payload))
        except (*UNDECODABLE, IndexError):
            break
        offset += _FRAME.size + length
    return names, min(offset, len(data))


class JournaledNames:
    """Own names that are written down as they change. The descriptor is the caller's; None is a journal that keeps nothing."""

    def __init__(self, fd: int | None) -> None:
        """Reads it. One that cannot be read is as good as an empty one, and is begun anew."""
        self.names = OwnNames()
        self._fd = fd
        self._end = self._start = 0
        self._compact_at = COMPACT_BYTES
        self._behind = 0
        if fd is not None:
            self._load(fd)

    def add(self, path: Path, own: Identity) -> None:
        if self.names.add(path, own):
            self._write(Added(path, own))

    def remove(self, path: Path) -> None:
        if self.names.remove(path):
            self._write(Removed(path))

    def disown(self, path: Path) -> None:
        if self.names.get(path) is not None:
            self.names.disown(path)
            self._write(Disowned(path))
            if self._fd is not None:
                with contextlib.suppress(OSError):
                    os.fdatasync(self._fd)

    def move(self, source: Path, target: Path, own: Identity | None) -> None:
        if own is not None or self.names.is_known(source) or self.names.is_known(target):
            self.names.move(source, target, own)
            self._write(Moved(source, target, own))

    def swap(self, one: Path, other: Path, own_one: Identity | None, own_other: Identity | None) -> None:
        if own_one is not None or own_other is not None or self.names.is_known(one) or self.names.is_known(other):
            self.names.swap(one, other, own_one, own_other)
            self._write(Swapped(one, other, own_one, own_other))

    @property
    def behind(self) -> bool:
        """Whether the file lacks something, for want of room."""
        return self._behind > 0

    def _load(self, fd: int) -> None:
        with contextlib.suppress(OSError, MemoryError):  # ENXIO: a file without data
            self._start = os.lseek(fd, 0, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
            data = _read_from(fd, self._start, os.stat(fd).st_size - self._start)
            self.names, read = parse_journal(data, self.names)
            self._end = self._start + read
        with contextlib.suppress(OSError):
            os.ftruncate(fd, self._end)
        self._compact_if_due()

    def _write(self, record: Record) -> None:
        if self._fd is None:
            return
        if not self._behind:
            if self._append(compose_frame(record)):
                self._compact_if_due()
                return
        elif self._behind % _RETRY_FRAMES == 0:
            self._compact()
            if not self._behind:
                return
        self._behind += 1
        if _gives_back(record):
            self._empty()

    def _empty(self) -> None:
        """Keep nothing: to shorten a file takes no room."""
        assert self._fd is not None
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            self._end = self._start = 0

    def _append(self, frame: bytes) -> bool:
        assert self._fd is not None
        try:
            if os.pwrite(self._fd, frame, self._end) == len(frame):
                self._end += len(frame)
                return True
        except OSError:
            pass
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._end)
        return False

    def _compact_if_due(self) -> None:
        length = self._end - self._start
        if length > max(COMPACT_BYTES, self._compact_at) and length > _WASTE * _NAME_BYTES * self.names.count:
            self._compact_at = _WASTE * length  # until it is known better
            self._compact()

    def _compact(self) -> None:
        """All names anew at the next block, durable; then away with what lies before. What fails leaves the old frames."""
        assert self._fd is not None
        before = self._end
        begin = -(-before // BLOCK_BYTES) * BLOCK_BYTES
        if 0 < begin - before < _FRAME.size:  # too short to be seen as a gap
            begin += BLOCK_BYTES
        try:
            written = self._append(bytes(begin - before) + compose_frame(All(list(self.names))))
        except MemoryError:
            return
        if not written:
            return
        self._behind = 0
        self._compact_at = _WASTE * (self._end - begin)
        with contextlib.suppress(OSError):
            os.fdatasync(self._fd)
            self._start = begin
            mode = file_calls.FALLOC_FL_PUNCH_HOLE | file_calls.FALLOC_FL_KEEP_SIZE
            if begin:
                file_calls.fallocate(self._fd, mode, 0, begin)


def _gives_back(record: Record) -> bool:
    """Whether it makes a name the user's while what was recorded may stand there still, or again."""
    match record:
        case Added() | Removed() | All():
            return False
        case Moved():
            return record.own is None
        case Swapped():
            return record.own_one is None or record.own_other is None
    return True


def _read_from(fd: int, offset: int, length: int) -> bytes:
    pieces = []
    while length > 0 and (piece := os.pread(fd, min(length, _READ_BYTES), offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)
