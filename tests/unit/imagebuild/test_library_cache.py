from __future__ import annotations

import struct
from pathlib import Path

import pytest

from imagebuild.library_cache import compare, compose_library_cache, find_libraries
from imagebuild.recipe import ARCHITECTURES
from tests.unit.imagebuild.tree_lab import make_elf, make_tree

LIB = "usr/lib/aarch64-linux-gnu"
ARM = ARCHITECTURES["aarch64"]


def read(cache: bytes) -> list[tuple[int, str, str]]:
    """What a linker would read."""
    assert cache[:20] == b"glibc-ld.so.cache1.1"
    count, length = struct.unpack_from("<II", cache, 20)
    assert len(cache) == 48 + 24 * count + length

    def text(place: int) -> str:
        return cache[place : cache.index(b"\0", place)].decode()

    rows = [struct.unpack_from("<iII", cache, 48 + 24 * index) for index in range(count)]
    return [(flags, text(name), text(path)) for flags, name, path in rows]


def test_a_linker_reads_names_and_paths() -> None:
    rows = read(compose_library_cache({"liba.so.1": "/usr/lib/liba.so.1", "libb.so.1": "/x/libb.so.1"}, flags=0x0A03))
    assert rows == [(0x0A03, "libb.so.1", "/x/libb.so.1"), (0x0A03, "liba.so.1", "/usr/lib/liba.so.1")]


@pytest.mark.parametrize(
    ("smaller", "greater"),
    [
        ("libm.so.6", "libm.so.10"),
        ("liba.so", "libb.so"),
        ("libc.so.6", "libc1.so"),
        ("lib", "libz"),
        ("libx.so.09", "libx.so.10"),
    ],
)
def test_names_are_compared_with_their_numbers_as_numbers(smaller: str, greater: str) -> None:
    assert compare(smaller, greater) < 0 < compare(greater, smaller)
    assert compare(smaller, smaller) == 0


def test_links_of_a_library_s_name_are_what_is_found(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        {
            f"{LIB}/libz.so.1.2.13": make_elf(soname="libz.so.1", machine=183),
            f"{LIB}/libforeign.so.1": make_elf(soname="libforeign.so.1", machine=62),
            f"{LIB}/other/libx.so.2": make_elf(soname="libx.so.2", machine=183),
            f"{LIB}/notes.so.txt": "no library",
            "etc/ld.so.conf.d/other.conf": f"# a comment\n/{LIB.removeprefix('usr/')}/other\n",
        },
    )
    tree.link(f"{LIB}/libz.so.1", "libz.so.1.2.13")
    assert find_libraries(tree, ARM) == {"libz.so.1": f"/{LIB}/libz.so.1", "libx.so.2": f"/{LIB}/other/libx.so.2"}
