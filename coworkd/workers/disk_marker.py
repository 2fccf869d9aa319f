"""The marker of a format that is under way: one sector in the tail of the device, which the file system never gets.

Order of a format: marker, durable → mkfs → all of it durable → marker gone, durable → mount. So a device with a marker holds nothing of
anybody's: it was blank when the marker was written, and nothing was mounted since. One sector is written whole or not at all. It names
the device's size, so that a file's contents cannot pass for one where a device was cut short.

Pure. Bytes: magic (24), format u32, size of the device u64, SHA-256 of all before (32), zeros to the end of the sector.
"""

from __future__ import annotations

import hashlib
import struct

from coworkd.model.disk import TAIL_BYTES

SECTOR_BYTES = 512
_HEAD = struct.Struct("<24sIQ")
_MAGIC = b"coworkd: format begun\n\0\0"
_FORMAT = 1


def marker_offset(size_bytes: int) -> int:
    """Where it stands on a device of this size: at the tail's begin."""
    return file_system_bytes(size_bytes)


def file_system_bytes(size_bytes: int) -> int:
    """How much of a device the file system gets: all but the tail, in whole blocks."""
    usable = size_bytes - TAIL_BYTES
    return usable - usable % 4096


def compose_marker(size_bytes: int) -> bytes:
    """The sector for a device of this size."""
    head = _HEAD.pack(_MAGIC, _FORMAT, size_bytes)
    return (head + hashlib.sha256(head).digest()).ljust(SECTOR_BYTES, b"\0")


def is_marker(sector: bytes, size_bytes: int) -> bool:
    """Whether `sector` is the marker of a device of exactly this size."""
    return sector[:SECTOR_BYTES] == compose_marker(size_bytes)
