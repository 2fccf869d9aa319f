"""Devices made of bytes, and superblocks written by hand."""

from __future__ import annotations

import errno
import struct

from coworkd.system.block_devices import Disk

MIB = 1024 * 1024


class FakeDevice:
    """Implements `disk_probe.Device`: zeros, with `pieces` at their offsets; reads that touch a byte of `broken` fail."""

    def __init__(
        self,
        size_bytes: int,
        pieces: dict[int, bytes] | None = None,
        *,
        signatures: dict[str, str] | None = None,
        broken: tuple[int, ...] = (),
    ) -> None:
        self.size_bytes = size_bytes
        self._pieces = pieces or {}
        self._signatures = signatures or {}
        self._broken = broken

    def read(self, offset: int, length: int) -> bytes:
        if any(offset <= place < offset + length for place in self._broken):
            raise OSError(errno.EIO, "Input/output error")
        data = bytearray(length)
        for place, piece in self._pieces.items():
            low, high = max(place, offset), min(place + len(piece), offset + length)
            if low < high:
                data[low - offset : high - offset] = piece[low - place : high - place]
        return bytes(data)

    def signatures(self) -> dict[str, str]:
        return self._signatures


def superblock(
    *,
    label: str = "cowork-sessions",
    blocks: int = 65_280,
    block_bytes: int = 4096,
    mounted_at: int = 1,
    group: int = 0,
    quota: bool = False,
) -> bytes:
    """1,024 bytes of an ext4 with 64-bit numbers of blocks."""
    data = bytearray(1024)
    struct.pack_into("<I", data, 0x4, blocks & 0xFFFFFFFF)
    struct.pack_into("<I", data, 0x18, block_bytes.bit_length() - 11)
    struct.pack_into("<I", data, 0x20, 32_768)
    struct.pack_into("<I", data, 0x2C, mounted_at)
    struct.pack_into("<H", data, 0x38, 0xEF53)
    struct.pack_into("<H", data, 0x5A, group)
    struct.pack_into("<I", data, 0x60, 0x80)
    struct.pack_into("<I", data, 0x64, 0x2100 if quota else 0)
    data[0x68:0x78] = bytes(range(16))
    data[0x78 : 0x78 + len(label)] = label.encode()
    struct.pack_into("<H", data, 0xFE, 64)
    struct.pack_into("<I", data, 0x150, blocks >> 32)
    return bytes(data)


def disk(name: str = "vdb", **fields: object) -> Disk:
    values: dict[str, object] = {
        "name": name,
        "path": f"/dev/{name}".encode(),
        "number": 0x100,
        "size_bytes": 64 * MIB,
        "serial": "",
        "read_only": False,
        "removable": False,
        "users": (),
    }
    return Disk(**{**values, **fields})  # type: ignore[arg-type]
