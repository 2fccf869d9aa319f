"""The superblock of an ext4 file system, read by us: a second opinion beside blkid's, and the only one where a checksum is wrong.

Pure. The primary one begins at byte 1024; copies begin the first block of groups 1, 3, 5, 7, 9 and so on, which is only looked for at
the block size that our own file systems have. Source: the kernel's Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import struct

from msgspec import Struct

PRIMARY_OFFSET = 1024
SUPERBLOCK_BYTES = 1024
BLOCK_BYTES = 4096
BLOCKS_A_GROUP = 8 * BLOCK_BYTES
BACKUP_GROUPS = (1, 3, 5, 7, 9)
_MAGIC = 0xEF53
_INCOMPAT_64BIT = 0x80
_RO_COMPAT_QUOTA, _RO_COMPAT_PROJECT = 0x100, 0x2000


class Superblock(Struct, frozen=True, kw_only=True):
    """What concerns us of one. `mounted_at` is 0 in one that was never mounted."""

    label: str
    uuid: str
    size_bytes: int
    block_bytes: int
    mounted_at: int
    group: int
    quota: bool
    errors: int


def parse_superblock(data: bytes) -> Superblock | None:
    """The superblock in 1,024 bytes; None where there is none. Checksums are e2fsck's to judge."""
    if len(data) < SUPERBLOCK_BYTES or _u16(data, 0x38) != _MAGIC:
        return None
    log_block = _u32(data, 0x18)
    if log_block > 6:  # 64 KiB is the largest block there is
        return None
    block_bytes = 1024 << log_block
    read_only = _u32(data, 0x64)
    return Superblock(
        label=data[0x78:0x88].partition(b"\0")[0].decode("utf-8", "replace"),
        uuid=data[0x68:0x78].hex(),
        size_bytes=_blocks(data) * block_bytes,
        block_bytes=block_bytes,
        mounted_at=_u32(data, 0x2C),
        group=_u16(data, 0x5A),
        quota=bool(read_only & (_RO_COMPAT_QUOTA | _RO_COMPAT_PROJECT)),
        errors=_u32(data, 0x194),
    )


def describes_groups(superblock: bytes, table: bytes) -> bool:
    """Whether the table of group descriptors points into the file system everywhere. One that does not must not be shown to e2fsck -p:
    it gives up on it only after it has copied parts of it over the copies.
    """
    size = _u16(superblock, 0xFE) if _u32(superblock, 0x60) & _INCOMPAT_64BIT else 32
    blocks = _blocks(superblock)
    if size < 32 or len(table) < size * groups(superblock):
        return False
    for group in range(groups(superblock)):
        for place in (0x0, 0x4, 0x8):  # the bitmaps of blocks and of inodes, and the inodes
            block = _u32(table, group * size + place)
            if size >= 64:
                block |= _u32(table, group * size + place + 0x20) << 32
            if not 0 < block < blocks:
                return False
    return True


def groups(superblock: bytes) -> int:
    """How many groups of blocks there are; 0 in a superblock that makes no sense."""
    in_group = _u32(superblock, 0x20)
    return -(-(_blocks(superblock) - _u32(superblock, 0x14)) // in_group) if in_group else 0


def table_bytes(superblock: bytes) -> int:
    """How long the table of group descriptors is at most."""
    return 64 * groups(superblock)


def backup_offsets(size_bytes: int) -> list[int]:
    """Where our own file systems keep copies, on a device of this size."""
    offsets = (group * BLOCKS_A_GROUP * BLOCK_BYTES for group in BACKUP_GROUPS)
    return [offset for offset in offsets if offset + SUPERBLOCK_BYTES <= size_bytes]


def _blocks(data: bytes) -> int:
    high = _u32(data, 0x150) if _u32(data, 0x60) & _INCOMPAT_64BIT else 0
    return high << 32 | _u32(data, 0x4)


def _u16(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", data, offset)[0])


def _u32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])
