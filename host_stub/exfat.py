"""An exFAT file system in a file, written without mounting anything: a tree of plain files goes in, an image comes out.

    sector 0   12 sectors boot region (the last is its checksum) · the same again
    sector 128 FAT          only the allocation bitmap, the up-case table and the root directory have chains in it
    then       clusters     bitmap · up-case table · directories, parents first · files, each in one piece

Rules
- What goes in is in one piece (NoFatChain), so that the FAT says nothing of it. Names are ASCII, 1 to 255 characters, and two names that
  differ in capitals only are refused: exFAT does not tell them apart.
- The same tree gives the same bytes: one date for everything, a serial number that is given.
- Nothing is deleted or grown: a new image is written instead.

Source: Microsoft, "exFAT file system specification" (the sections are named where a layout is written).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from msgspec import Struct

SECTOR, CLUSTER = 512, 4096
_PER_CLUSTER = CLUSTER // SECTOR
_FAT_SECTOR = 128
_FIRST_CLUSTER = 2
_END_OF_CHAIN = 0xFFFFFFFF
_LEAST_CLUSTERS = 1024
_SPARE_CLUSTERS = 64
_TIMESTAMP = (2020 - 1980) << 25 | 1 << 21 | 1 << 16
_UTC = 0x80
_LABEL_LIMIT = 11
_DIRECTORY, _ARCHIVE = 0x10, 0x20
_IN_ONE_PIECE = 0x03
_UPCASE = struct.pack("<128H2H", *(ord(chr(code).upper()) for code in range(128)), 0xFFFF, 0x10000 - 128)
"""ASCII, and then: so many more are what they are (7.2.5.1, compressed)."""


class ExfatFile(Struct, frozen=True, kw_only=True):
    """`chunks` gives exactly `size` bytes, once."""

    size: int
    chunks: Iterable[bytes]


class _Place(Struct, kw_only=True):
    """Where something lies; a `first` of 0 is nowhere: it is empty."""

    first: int
    size: int
    clusters: int


class _Directory:
    """Names to files and directories."""

    def __init__(self) -> None:
        self.entries: dict[str, _Directory | ExfatFile] = {}
        self.place = _Place(first=0, size=0, clusters=0)

    def inner(self, name: str) -> _Directory:
        """The directory `name` in it, made where it is missing. Raises `ValueError` where a file has that name."""
        found = self.entries.setdefault(name, _Directory())
        if isinstance(found, _Directory):
            return found
        raise ValueError(f"{name!r} is a file and a directory")


def write_exfat(out: BinaryIO, files: Mapping[str, ExfatFile], *, label: str, serial: int) -> None:
    """Write an image with `files`, by relative path. `out` is empty and can be sought in. Raises `ValueError` for names that cannot be,
    or a file of another size than it said; `OSError`.
    """
    if not (label.isascii() and 0 < len(label) <= _LABEL_LIMIT):
        raise ValueError(f"{label!r} is no label of 1 to {_LABEL_LIMIT} ASCII characters")
    root = _tree(files)
    above = list(_directories(root))
    inner = sum(_clusters(_length(directory)) for directory in above)
    data = sum(_clusters(file.size) for file in files.values())
    clusters = max(_LEAST_CLUSTERS, inner + data + data // 16 + _SPARE_CLUSTERS)
    bitmap_size, next_free = -(-clusters // 8), _FIRST_CLUSTER
    bitmap, next_free = _put(next_free, bitmap_size)
    upcase, next_free = _put(next_free, len(_UPCASE))
    for directory in above:
        directory.place, next_free = _put(next_free, _length(directory))
    places: dict[str, _Place] = {}
    for path, file in files.items():
        places[path], next_free = _put(next_free, file.size)
    geometry = _Geometry(clusters=clusters, root=root.place.first, serial=serial)
    _write_boot(out, geometry)
    _write_fat(out, (bitmap, upcase, root.place))
    used = next_free - _FIRST_CLUSTER
    _write_at(out, geometry, bitmap, (_bits(used, bitmap_size),))
    _write_at(out, geometry, upcase, (_UPCASE,))
    for path, directory in _named(root, ""):
        head = _root_head(label, bitmap, upcase) if directory is root else b""
        entries = b"".join(_described(name, entry, places, path) for name, entry in directory.entries.items())
        _write_at(out, geometry, directory.place, ((head + entries).ljust(directory.place.size, b"\0"),))
    for path, file in files.items():
        _write_at(out, geometry, places[path], file.chunks, exactly=file.size, name=path)
    out.seek(geometry.sectors * SECTOR - 1)  # in a cluster that is free: some are to spare
    out.write(b"\0")


class _Geometry(Struct, frozen=True, kw_only=True):
    clusters: int
    root: int
    serial: int

    @property
    def fat_sectors(self) -> int:
        wanted = -(-4 * (self.clusters + _FIRST_CLUSTER) // SECTOR)
        return -(-wanted // _PER_CLUSTER) * _PER_CLUSTER

    @property
    def heap_sector(self) -> int:
        return _FAT_SECTOR + self.fat_sectors

    @property
    def sectors(self) -> int:
        return self.heap_sector + self.clusters * _PER_CLUSTER


def _tree(files: Mapping[str, ExfatFile]) -> _Directory:
    root = _Directory()
    for path, file in files.items():
        *parents, name = path.split("/")
        at = root
        for parent in parents:
            at = at.inner(_check_name(parent))
        if _check_name(name) in at.entries:
            raise ValueError(f"{path!r} is there twice")
        at.entries[name] = file
    for directory in _directories(root):
        if len({name.upper() for name in directory.entries}) != len(directory.entries):
            raise ValueError(f"names that differ in capitals only: {sorted(directory.entries)[:6]}")
    return root


def _check_name(name: str) -> str:
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= 255) or set(name) & set('"*/:<>?\\|'):
        raise ValueError(f"{name[:60]!r} is no name of an exFAT file")
    return name


def _directories(root: _Directory) -> Iterator[_Directory]:
    return (directory for _, directory in _named(root, ""))


def _named(directory: _Directory, path: str) -> Iterator[tuple[str, _Directory]]:
    """Parents first."""
    yield path, directory
    for name, entry in directory.entries.items():
        if isinstance(entry, _Directory):
            yield from _named(entry, f"{path}{name}/")


def _length(directory: _Directory) -> int:
    """Bytes of its entries, with the three of a root to spare, in whole clusters."""
    entries = 3 + sum(2 + -(-len(name) // 15) for name in directory.entries)
    return _clusters(32 * entries) * CLUSTER


def _clusters(size: int) -> int:
    return -(-size // CLUSTER)


def _put(next_free: int, size: int) -> tuple[_Place, int]:
    count = _clusters(size)
    return _Place(first=next_free if count else 0, size=size, clusters=count), next_free + count


# -- entries of directories (6, 7) --------------------------------------------------------------------------------


def _root_head(label: str, bitmap: _Place, upcase: _Place) -> bytes:
    """The label, the bitmap and the up-case table."""
    checksum = 0
    for byte in _UPCASE:
        checksum = ((checksum << 31 | checksum >> 1) + byte) & 0xFFFFFFFF
    return (
        struct.pack("<BB22s8x", 0x83, len(label), label.encode("utf-16-le"))
        + struct.pack("<BB18xIQ", 0x81, 0, bitmap.first, bitmap.size)
        + struct.pack("<B3xI12xIQ", 0x82, checksum, upcase.first, upcase.size)
    )


def _described(name: str, entry: _Directory | ExfatFile, places: Mapping[str, _Place], path: str) -> bytes:
    """The file, stream extension and name entries of one name."""
    is_directory = isinstance(entry, _Directory)
    place = entry.place if isinstance(entry, _Directory) else places[path + name]
    parts = [name[begin : begin + 15] for begin in range(0, len(name), 15)]
    head = struct.pack(
        "<BBHHHIIIBBBBB7x",
        *(0x85, 1 + len(parts), 0, _DIRECTORY if is_directory else _ARCHIVE, 0),
        *(_TIMESTAMP, _TIMESTAMP, _TIMESTAMP, 0, 0, _UTC, _UTC, _UTC),
    )
    flags = _IN_ONE_PIECE if place.clusters else 0x01
    stream = struct.pack(
        "<BBBBHHQ4xIQ", 0xC0, flags, 0, len(name), _name_hash(name), 0, place.size, place.first, place.size
    )
    names = b"".join(struct.pack("<BB30s", 0xC1, 0, part.encode("utf-16-le")) for part in parts)
    whole = head + stream + names
    return whole[:2] + struct.pack("<H", _set_checksum(whole)) + whole[4:]


def _set_checksum(entries: bytes) -> int:
    checksum = 0
    for place, byte in enumerate(entries):
        if place not in (2, 3):
            checksum = ((checksum << 15 | checksum >> 1) + byte) & 0xFFFF
    return checksum


def _name_hash(name: str) -> int:
    checksum = 0
    for byte in name.upper().encode("utf-16-le"):
        checksum = ((checksum << 15 | checksum >> 1) + byte) & 0xFFFF
    return checksum


# -- regions (3, 4, 5) --------------------------------------------------------------------------------------------


def _write_boot(out: BinaryIO, geometry: _Geometry) -> None:
    boot = struct.pack(
        "<3s8s53xQQIIIIIIHHBBBBB7x390sH",
        *(b"\xeb\x76\x90", b"EXFAT   ", 0, geometry.sectors, _FAT_SECTOR, geometry.fat_sectors),
        *(geometry.heap_sector, geometry.clusters, geometry.root, geometry.serial & 0xFFFFFFFF),
        *(0x100, 0, SECTOR.bit_length() - 1, _PER_CLUSTER.bit_length() - 1, 1, 0x80, 0xFF),
        *(b"\xf4" * 390, 0xAA55),
    )
    extended = bytes(SECTOR - 4) + struct.pack("<I", 0xAA550000)
    region = boot + extended * 8 + bytes(SECTOR) * 2
    checksum = 0
    for place, byte in enumerate(region):
        if place not in (106, 107, 112):
            checksum = ((checksum << 31 | checksum >> 1) + byte) & 0xFFFFFFFF
    region += struct.pack("<I", checksum) * (SECTOR // 4)
    out.seek(0)
    out.write(region * 2)


def _write_fat(out: BinaryIO, chains: Iterable[_Place]) -> None:
    fat = {0: 0xFFFFFFF8, 1: _END_OF_CHAIN}
    for place in chains:
        last = place.first + place.clusters - 1
        fat.update({cluster: cluster + 1 for cluster in range(place.first, last)})
        fat[last] = _END_OF_CHAIN
    out.seek(_FAT_SECTOR * SECTOR)
    out.write(b"".join(struct.pack("<I", fat.get(cluster, 0)) for cluster in range(max(fat) + 1)))


def _bits(count: int, size: int) -> bytes:
    """A bitmap whose first `count` bits are set."""
    return ((1 << count) - 1).to_bytes(size, "little")


def _write_at(
    out: BinaryIO,
    geometry: _Geometry,
    place: _Place,
    chunks: Iterable[bytes],
    *,
    exactly: int | None = None,
    name: str = "",
) -> None:
    if place.clusters:
        out.seek((geometry.heap_sector + (place.first - _FIRST_CLUSTER) * _PER_CLUSTER) * SECTOR)
    length = 0
    for chunk in chunks:
        length += len(chunk)
        if exactly is not None and length > exactly:
            break
        out.write(chunk)
    if exactly is not None and length != exactly:
        raise ValueError(
            f"{name} has {'more' if length > exactly else 'fewer'} than the {exactly} bytes it should have"
        )
