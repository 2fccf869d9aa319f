"""What is on a device: blank, ours, or somebody else's. The judge of what may be formatted, so it doubts.

Blank is only what is zero in its first 16 MiB and its last, where file systems keep copies of their superblock, and in samples all over,
has no signature that blkid knows, and gives every sector that was asked for. All else is told with what was found, and left alone.

Rules
- Ours is an ext4 with our label and no other signature. One whose first superblock is lost is ours by a copy of it.
- A marker (`disk_marker`) makes a device ours to format only while no file system on it was ever mounted, and nothing else has a
  signature there: somebody may have used the device for something else since.
- What cannot be read is never blank.

Nothing is written here. Reads go through `Device`, so that tests can hand in ones that fail.
"""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from coworkd.workers.disk_marker import SECTOR_BYTES, is_marker, marker_offset
from coworkd.workers.disk_superblock import (
    BLOCK_BYTES,
    PRIMARY_OFFSET,
    SUPERBLOCK_BYTES,
    Superblock,
    backup_offsets,
    parse_superblock,
)

LEAST_BYTES = 16 * 1024 * 1024
_EDGE_BYTES = 1024 * 1024
_HEAD_BYTES = 16 * 1024 * 1024
"""Zeros over a table of partitions leave the first of them behind, 1 MiB further; ext4 of small blocks has its first copy at 8 MiB."""
_COPIES = (32 * 1024 * 1024, 64 * 1024 * 1024, 256 * 1024 * 1024 * 1024)
"""Where others keep copies of their superblock, beside `backup_offsets`: ext4 of 2 KiB blocks, and btrfs."""
_SAMPLES, _SAMPLE_BYTES = 256, 64 * 1024
_READ_BYTES = 1024 * 1024

What = Literal["blank", "begun", "ours", "damaged", "cut", "foreign", "unreadable", "small"]


class Device(Protocol):
    """A device that is being looked at."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly that many bytes. Raises `OSError`."""

    def signatures(self) -> dict[str, str]:
        """What blkid says (`disk_tools.blkid`). Raises `OSError`."""


class Content(Struct, frozen=True, kw_only=True):
    """`begun`: a format of ours that did not end. `damaged`: ours, by the copy of its superblock at the byte `backup`. `cut`: ours,
    on a device that is smaller than it.
    """

    what: What
    detail: str = ""
    superblock: Superblock | None = None
    backup: int = 0


def probe(device: Device, label: str) -> Content:
    """Look at it. Never raises; a device that refuses is `unreadable`."""
    if device.size_bytes < LEAST_BYTES:
        return Content(what="small", detail=f"it has {device.size_bytes} bytes, {LEAST_BYTES} are needed")
    try:
        return _probe(device, label)
    except OSError as error:
        return Content(what="unreadable", detail=f"it cannot be read: {error.strerror or error}")


def _probe(device: Device, label: str) -> Content:
    size = device.size_bytes
    head = _read(device, 0, _EDGE_BYTES)
    superblock = parse_superblock(head[PRIMARY_OFFSET : PRIMARY_OFFSET + SUPERBLOCK_BYTES])
    never_mounted = superblock is None or (superblock.mounted_at == 0 and superblock.label in ("", label))
    marked = never_mounted and is_marker(_read(device, marker_offset(size), SECTOR_BYTES), size)
    signatures = device.signatures()
    if marked and not _others(signatures):
        return Content(what="begun", detail="a format of ours that did not end")
    if superblock is not None:
        return _judge_ext4(superblock, signatures, size, label)
    if signatures:
        return Content(what="foreign", detail=describe(signatures))
    backup = _find_backup(device, label)
    if backup is not None:
        return backup
    return _judge_unsigned(device, head)


def describe(signatures: dict[str, str]) -> str:
    """Blkid's findings as words: what kind, which label."""
    if "AMBIVALENT" in signatures:
        return "signatures of several file systems or partition tables"
    kind = signatures.get("TYPE") or signatures.get("PTTYPE")
    if kind is None:
        return "a signature: " + ", ".join(f"{key}={value}" for key, value in sorted(signatures.items()))
    words = f"{kind} signature" if "TYPE" in signatures else f"{kind} partition table"
    return f"{words} labelled {signatures['LABEL']!r}" if signatures.get("LABEL") else words


def _judge_ext4(superblock: Superblock, signatures: dict[str, str], size: int, label: str) -> Content:
    # A checksum that is wrong hides it from blkid, which is no reason to take it for another's.
    others = _others(signatures)
    if others:
        return Content(what="foreign", detail=f"{describe(others)}, over an ext4 file system")
    if superblock.label != label:
        named = f"labelled {superblock.label!r}" if superblock.label else "without a label"
        return Content(what="foreign", detail=f"an ext4 file system {named}")
    if superblock.size_bytes > size:
        said = f"its file system has {superblock.size_bytes} bytes, the device only {size}"
        return Content(what="cut", detail=f"{said}: it was cut short", superblock=superblock)
    return Content(what="ours", superblock=superblock)


def _others(signatures: dict[str, str]) -> dict[str, str]:
    """What blkid has found that is no part of an ext4 file system alone."""
    others = {key: value for key, value in signatures.items() if key in ("AMBIVALENT", "PTTYPE")}
    return others or ({} if signatures.get("TYPE", "ext4").startswith("ext") else signatures)


def _find_backup(device: Device, label: str) -> Content | None:
    for offset in backup_offsets(device.size_bytes):
        found = parse_superblock(_read(device, offset, SUPERBLOCK_BYTES))
        if found is None or found.label != label or found.block_bytes != BLOCK_BYTES or found.group == 0:
            continue
        if found.size_bytes > device.size_bytes:
            said = f"its first superblock is lost, and it was cut short from {found.size_bytes} bytes"
            return Content(what="cut", detail=said, superblock=found)
        said = f"its first superblock is lost, a copy is in block {offset // BLOCK_BYTES}"
        return Content(what="damaged", detail=said, superblock=found, backup=offset)
    return None


def _judge_unsigned(device: Device, head: bytes) -> Content:
    size = device.size_bytes
    whole = [(0, head), (size - _EDGE_BYTES, _read(device, size - _EDGE_BYTES, _EDGE_BYTES))]
    whole += ((offset, _read(device, offset, _EDGE_BYTES)) for offset in range(_EDGE_BYTES, _HEAD_BYTES, _EDGE_BYTES))
    for offset, data in whole:
        if data.count(0) != len(data):
            return _unknown_data(offset + len(data) - len(data.lstrip(b"\0")))
    copies = [offset for offset in (*backup_offsets(size), *_COPIES) if offset + _SAMPLE_BYTES <= size]
    spread = [(size - _SAMPLE_BYTES) * number // _SAMPLES for number in range(_SAMPLES)]
    for offset in (*copies, *spread):
        data = _read(device, offset - offset % SECTOR_BYTES, _SAMPLE_BYTES)
        if data.count(0) != len(data):
            return _unknown_data(offset)
    return Content(what="blank")


def _unknown_data(offset: int) -> Content:
    return Content(what="foreign", detail=f"data without a signature that is known, at byte {offset}")


def _read(device: Device, offset: int, length: int) -> bytes:
    """Read whole, in pieces; what fails is told with its place."""
    pieces = []
    for begin in range(offset, offset + length, _READ_BYTES):
        try:
            pieces.append(device.read(begin, min(_READ_BYTES, offset + length - begin)))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, near byte {begin}") from error
    return b"".join(pieces)
