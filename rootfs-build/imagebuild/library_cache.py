"""/etc/ld.so.cache, written here: the target's ldconfig cannot run on a foreign machine, and this machine's knows only its own kind.

With it the dynamic linker opens a library at once, where else it tries each of its directories for each library of each program; and it
finds libraries of directories that only /etc/ld.so.conf.d names. A sandbox gets the same file.

Layout, all little-endian: magic of 20 bytes, count, bytes of the string table, a byte that says the byte order (2: little), three of
padding, offset of extensions (0: none), 12 bytes unused; then for each library flags (int32), offsets of name and path from the start of
the file, 4 and 8 bytes unused; then the strings. Entries are in descending order as `compare` has it, for the linker searches by halves.

Source: glibc's elf/cache.h and dl-cache.h (as facts), ldconfig(8).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable

from imagebuild.elf import read_soname
from imagebuild.recipe import Architecture
from imagebuild.tree import Tree

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER, _ENTRY = 48, 24


def find_libraries(tree: Tree, architecture: Architecture) -> dict[str, str]:
    """Every library's soname and its path in the guest; of two with one soname, the directory that is searched first has it."""
    found: dict[str, str] = {}
    for directory in _directories(tree, architecture):
        for name in sorted(tree.path(directory).iterdir(), key=lambda path: path.name):
            if ".so" not in name.name or name.is_symlink() or not name.is_file():
                continue
            soname = read_soname(name.read_bytes(), machine=architecture.elf_machine)
            # The link of that name is what packages bring; without it the file itself is found by its own name.
            here = (
                f"{directory}/{soname}"
                if soname and tree.exists(f"{directory}/{soname}")
                else f"{directory}/{name.name}"
            )
            if soname:
                found.setdefault(soname, f"/{here}")
    return found


def compose_library_cache(libraries: dict[str, str], *, flags: int) -> bytes:
    """The file for libraries by soname."""
    names = sorted(libraries, key=functools.cmp_to_key(compare), reverse=True)
    start = _HEADER + _ENTRY * len(names)
    entries, strings = bytearray(), bytearray()
    for name in names:
        offsets = []
        for text in (name, libraries[name]):
            offsets.append(start + len(strings))
            strings += text.encode() + b"\0"
        entries += struct.pack("<iIIIQ", flags, *offsets, 0, 0)
    header = _MAGIC + struct.pack("<IIB3xI12x", len(names), len(strings), 2, 0)
    return header + bytes(entries) + bytes(strings)


def compare(one: str, other: str) -> int:
    """The linker's own order of names: as texts, but runs of digits as numbers, and a digit after all that is none."""
    left, right = one.encode(), other.encode()
    i = j = 0
    while i < len(left):
        a, b = left[i], right[j] if j < len(right) else 0
        if _digit(a) and _digit(b):
            first, i = _number(left, i)
            second, j = _number(right, j)
            if first != second:
                return first - second
        elif _digit(a) or _digit(b):
            return 1 if _digit(a) else -1
        elif a != b:
            return a - b
        else:
            i, j = i + 1, j + 1
    return -(right[j] if j < len(right) else 0)


def _digit(byte: int) -> bool:
    return 0x30 <= byte <= 0x39


def _number(text: bytes, place: int) -> tuple[int, int]:
    end = place
    while end < len(text) and _digit(text[end]):
        end += 1
    return int(text[place:end]), end


def _directories(tree: Tree, architecture: Architecture) -> list[str]:
    """Where libraries are: what ld.so.conf.d names, then the linker's own."""
    named: list[str] = []
    if tree.exists("etc/ld.so.conf.d"):
        for name in tree.names("etc/ld.so.conf.d"):
            named += _named_directories(tree.read(name).splitlines())
    own = [f"usr/lib/{architecture.triplet}", "usr/lib64", "usr/lib"]
    whole = dict.fromkeys(merged for merged in (*named, *own) if tree.exists(merged) and tree.path(merged).is_dir())
    return list(whole)


def _named_directories(lines: Iterable[str]) -> list[str]:
    plain = (line.partition("#")[0].strip().strip("/") for line in lines)
    return [
        f"usr/{name}" if name.split("/", 1)[0] in ("lib", "lib64") else name
        for name in plain
        if name and " " not in name
    ]
