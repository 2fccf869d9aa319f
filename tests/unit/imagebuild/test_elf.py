from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuild.elf import needed_libraries, read_soname
from tests.unit.imagebuild.tree_lab import make_elf


def test_names_are_read() -> None:
    content = make_elf(soname="libone.so.1", needed=("libc.so.6", "libtwo.so"))
    assert needed_libraries(content) == ("libc.so.6", "libtwo.so")
    assert read_soname(content, machine=62) == "libone.so.1"


def test_a_library_of_another_machine_has_no_name_here() -> None:
    assert read_soname(make_elf(soname="libone.so.1"), machine=183) == ""
    assert read_soname(make_elf(soname="libone.so.1", kind=2), machine=62) == ""


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh", b"\x7fELF\x01\x01" + bytes(90), b"\x7fELF\x02\x01"])
def test_what_is_no_such_file_needs_nothing(content: bytes) -> None:
    assert needed_libraries(content) == ()
    assert read_soname(content, machine=62) == ""


@given(st.integers(64, 400), st.binary(max_size=8))
def test_a_damaged_library_has_no_name_rather_than_an_error(place: int, junk: bytes) -> None:
    content = bytearray(make_elf(soname="libone.so.1", needed=("libc.so.6",)))
    content[place : place + len(junk)] = junk
    needed_libraries(bytes(content[: max(64, place)]))
    read_soname(bytes(content), machine=62)
