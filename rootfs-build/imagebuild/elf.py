"""What an ELF file says of itself: the libraries it needs, by name. 64-bit little-endian only, as both our machines are.

Source: elf(5).
"""

from __future__ import annotations

import struct

_DYNAMIC, _LOAD = 2, 1
_NEEDED, _STRTAB = 1, 5


def needed_libraries(content: bytes) -> tuple[str, ...]:
    """DT_NEEDED of a dynamic program or library; empty for a static one or for what is no such file."""
    if content[:6] != b"\x7fELF\x02\x01":
        return ()
    (program_offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", content, program_offset + index * size) for index in range(count)]
    dynamic = next((header for header in headers if header[0] == _DYNAMIC), None)
    if dynamic is None:
        return ()
    entries = [struct.unpack_from("<QQ", content, dynamic[2] + index * 16) for index in range(dynamic[5] // 16)]
    address = next((value for tag, value in entries if tag == _STRTAB), 0)
    load = next((header for header in headers if header[0] == _LOAD and header[3] <= address < header[3] + header[5]), None)
    if load is None:
        return ()
    strings = address - load[3] + load[2]
    names = [strings + value for tag, value in entries if tag == _NEEDED]
    return tuple(content[start : content.index(b"\0", start)].decode() for start in names)
