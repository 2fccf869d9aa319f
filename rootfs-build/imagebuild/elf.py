"""What an ELF file says of itself: the libraries it needs, its own name as one. 64-bit little-endian only, as both our machines are.

Source: elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_DYNAMIC, _LOAD = 2, 1
_NEEDED, _STRTAB, _SONAME = 1, 5, 14
_DYNAMIC_OBJECT = 3


def needed_libraries(content: bytes) -> tuple[str, ...]:
    """DT_NEEDED of a dynamic program or library; empty for a static one or for what is no such file."""
    return tuple(text for tag, text in _texts(content) if tag == _NEEDED)


def read_soname(content: bytes, *, machine: int) -> str:
    """DT_SONAME of a shared library of `machine` (e_machine); empty where it is none or has none."""
    if len(content) < 64 or content[:6] != b"\x7fELF\x02\x01":
        return ""
    if struct.unpack_from("<HH", content, 16) != (_DYNAMIC_OBJECT, machine):
        return ""
    return next((text for tag, text in _texts(content) if tag == _SONAME), "")


def _texts(content: bytes) -> tuple[tuple[int, str], ...]:
    """Tag and text of every entry of the dynamic section whose value is a text; none of a file that is damaged."""
    if content[:6] != b"\x7fELF\x02\x01":
        return ()
    try:
        return tuple(_read_texts(content))
    except (struct.error, ValueError, IndexError):  # UnicodeDecodeError is a ValueError
        return ()


def _read_texts(content: bytes) -> Iterator[tuple[int, str]]:
    (program_offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", content, program_offset + index * size) for index in range(count)]
    dynamic = next((header for header in headers if header[0] == _DYNAMIC), None)
    if dynamic is None:
        return
    end = min(len(content), dynamic[2] + dynamic[5]) - 15
    entries = [struct.unpack_from("<QQ", content, place) for place in range(dynamic[2], end, 16)]
    address = next((value for tag, value in entries if tag == _STRTAB), 0)
    load = next(
        (header for header in headers if header[0] == _LOAD and header[3] <= address < header[3] + header[5]), None
    )
    if load is None:
        return
    strings = address - load[3] + load[2]
    for tag, value in entries:
        if tag in (_NEEDED, _SONAME):
            start = strings + value
            yield tag, content[start : content.index(b"\0", start)].decode()
