"""A unified kernel image: systemd's EFI stub with the kernel, its command line and the initrd as sections of one PE file.

The stub is a small EFI program that looks for sections by their names in its own image (systemd-stub(7)). Here they are appended to it,
page-aligned, after its own; any tool that knows PE could do it, but objcopy only for the architectures it was built for.

Source: the PE format (Microsoft), systemd-stub(7).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from imagebuild.trouble import Trouble

_PAGE = 4096
_READ_ONLY_DATA = 0x40000040
"""IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ."""
_SECTION_BYTES = 40
_TIMESTAMP, _IMAGE_SIZE, _HEADERS_SIZE, _CHECKSUM = 8, 56, 60, 64


def compose_uki(stub: bytes, sections: Sequence[tuple[str, bytes]]) -> bytes:
    """The stub with `sections` (name, content) added. Raises `Trouble` where it is no PE file or has no room for their headers."""
    if stub[:2] != b"MZ":
        raise Trouble("the EFI stub is no PE file")
    (header,) = struct.unpack_from("<I", stub, 60)
    if stub[header : header + 4] != b"PE\0\0":
        raise Trouble("the EFI stub is no PE file")
    count, optional_size = struct.unpack_from("<H12xH", stub, header + 6)
    optional = header + 24
    section_alignment, file_alignment = struct.unpack_from("<II", stub, optional + 32)
    (headers_size,) = struct.unpack_from("<I", stub, optional + _HEADERS_SIZE)
    table = optional + optional_size
    if table + (count + len(sections)) * _SECTION_BYTES > headers_size:
        raise Trouble(f"the EFI stub has no room for {len(sections)} more sections")
    image = bytearray(stub)
    address = max(_end_of(image, table + index * _SECTION_BYTES) for index in range(count))
    for index, (name, content) in enumerate(sections, count):
        address = _aligned(address, max(section_alignment, _PAGE))
        image += bytes(-len(image) % file_alignment)
        padded = content + bytes(-len(content) % file_alignment)
        struct.pack_into(
            "<8sIIIIIIHHI",
            image,
            table + index * _SECTION_BYTES,
            name.encode(),
            len(content),
            address,
            len(padded),
            len(image),
            *(0, 0, 0, 0),
            _READ_ONLY_DATA,
        )
        image += padded
        address += len(content)
    struct.pack_into("<H", image, header + 6, count + len(sections))
    struct.pack_into("<I", image, optional + _IMAGE_SIZE, _aligned(address, section_alignment))
    struct.pack_into("<I", image, optional + _CHECKSUM, 0)
    return bytes(image)


def compose_sections(*, os_release: str, command_line: str, kernel: bytes, initrd: bytes) -> list[tuple[str, bytes]]:
    """The sections that systemd-stub(7) boots from, in the order it lists them."""
    return [
        (".osrel", os_release.encode()),
        (".cmdline", command_line.encode()),
        (".initrd", initrd),
        (".linux", kernel),
    ]


def _end_of(image: bytearray, section: int) -> int:
    size, address = struct.unpack_from("<II", image, section + 8)
    return int(size) + int(address)


def _aligned(value: int, to: int) -> int:
    return -(-value // to) * to
