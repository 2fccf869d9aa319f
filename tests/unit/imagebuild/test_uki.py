from __future__ import annotations

import struct

import pytest

from imagebuild.trouble import Trouble
from imagebuild.uki import compose_sections, compose_uki


def make_stub(*, headers_size: int = 1024) -> bytes:
    """A PE file of one section, as small as one can be."""
    head = bytearray(headers_size)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 60, 128)
    head[128:132] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", head, 132, 0x8664, 1, 0, 0, 0, 240, 0x22)
    struct.pack_into("<II", head, 152 + 32, 4096, 512)
    struct.pack_into("<II", head, 152 + 56, 0x3000, headers_size)
    struct.pack_into("<8sIIIIIIHHI", head, 392, b".text", 100, 0x1000, 512, headers_size, 0, 0, 0, 0, 0x60000020)
    return bytes(head) + b"code".ljust(512, b"\0")


def sections_of(image: bytes) -> list[tuple[str, int, bytes]]:
    """Name, address and content of every section."""
    (header,) = struct.unpack_from("<I", image, 60)
    count, size = struct.unpack_from("<H12xH", image, header + 6)
    found = []
    for index in range(count):
        name, length, address, _, place = struct.unpack_from("<8sIIII", image, header + 24 + size + index * 40)
        found.append((name.rstrip(b"\0").decode(), address, image[place : place + length]))
    return found


def test_the_sections_are_there_and_apart() -> None:
    wanted = compose_sections(os_release="NAME=x\n", command_line="ro", kernel=b"k" * 5000, initrd=b"i" * 10)
    image = compose_uki(make_stub(), wanted)
    found = sections_of(image)
    assert [name for name, _, _ in found] == [".text", ".osrel", ".cmdline", ".initrd", ".linux"]
    assert {name: content for name, _, content in found[1:]} == dict(wanted)
    ends = 0
    for _, address, content in found:
        assert address % 4096 == 0
        assert address >= ends
        ends = address + len(content)
    (image_size,) = struct.unpack_from("<I", image, 152 + 56)
    assert image_size == -(-ends // 4096) * 4096


def test_the_same_parts_are_the_same_bytes() -> None:
    parts = [(".linux", b"x")]
    assert compose_uki(make_stub(), parts) == compose_uki(make_stub(), parts)


@pytest.mark.parametrize("stub", [b"", b"ELF", b"MZ" + bytes(58) + struct.pack("<I", 64) + b"NE\0\0"])
def test_what_is_no_program_of_efi_is_refused(stub: bytes) -> None:
    with pytest.raises(Trouble, match="no PE file"):
        compose_uki(stub, [])


def test_a_stub_without_room_for_headers_is_refused() -> None:
    with pytest.raises(Trouble, match="no room for 4 more"):
        compose_uki(make_stub(headers_size=512), [(f".{number}", b"") for number in range(4)])
