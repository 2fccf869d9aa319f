"""The cache gives back what was stored, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.seccomp import program_cache
from coworkd.seccomp.program_cache import MAX_ENTRIES, Entry, load_entry, store_entry

KEY, OTHER = "a" * 64, "b" * 64
ENTRY = Entry(bpf=b"12345678", compiler="coworkd", remark="why")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store_entry(tmp_path / "cache", KEY, ENTRY)
    return tmp_path / "cache"


def test_cache_gives_back_what_was_stored(directory: Path) -> None:
    assert load_entry(directory, KEY) == ENTRY
    assert [path.name for path in directory.iterdir()] == [f"{KEY}.seccomp"]


def test_cache_has_nothing_for_another_key(directory: Path) -> None:
    assert load_entry(directory, OTHER) is None


def test_cache_refuses_the_entry_of_another_key(directory: Path) -> None:
    os.rename(directory / f"{KEY}.seccomp", directory / f"{OTHER}.seccomp")
    assert load_entry(directory, OTHER) is None


@pytest.mark.parametrize("place", [0, 31, 32, -1])
def test_cache_refuses_a_changed_byte(directory: Path, place: int) -> None:
    path = directory / f"{KEY}.seccomp"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert load_entry(directory, KEY) is None


@pytest.mark.parametrize("length", [0, 10, 32, 40])
def test_cache_refuses_a_cut_entry(directory: Path, length: int) -> None:
    os.truncate(directory / f"{KEY}.seccomp", length)
    assert load_entry(directory, KEY) is None


@pytest.mark.parametrize("content", [b"\xc1", b"\x81\xa6remark\xa1\xff", b"\x81\xa1x" + b"\x91" * 5000])
def test_cache_refuses_an_entry_that_is_sealed_and_says_nothing(directory: Path, content: bytes) -> None:
    """The second has a text that is no UTF-8."""
    (directory / f"{KEY}.seccomp").write_bytes(program_cache._digest(KEY, content) + content)
    assert load_entry(directory, KEY) is None


def test_cache_refuses_what_others_could_have_written(directory: Path) -> None:
    (directory / f"{KEY}.seccomp").chmod(0o622)
    assert load_entry(directory, KEY) is None


def test_cache_refuses_a_directory_others_can_write(directory: Path) -> None:
    directory.chmod(0o777)
    assert load_entry(directory, KEY) is None


def test_cache_does_not_follow_a_link(directory: Path, tmp_path: Path) -> None:
    os.rename(directory / f"{KEY}.seccomp", tmp_path / "elsewhere")
    (directory / f"{KEY}.seccomp").symlink_to(tmp_path / "elsewhere")
    assert load_entry(directory, KEY) is None


def test_cache_refuses_a_fifo_without_waiting(directory: Path) -> None:
    os.unlink(directory / f"{KEY}.seccomp")
    os.mkfifo(directory / f"{KEY}.seccomp")
    assert load_entry(directory, KEY) is None


def test_cache_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store_entry(tmp_path / "file" / "cache", KEY, ENTRY)
    assert load_entry(tmp_path / "file" / "cache", KEY) is None


def test_cache_is_bounded(tmp_path: Path) -> None:
    for place in range(MAX_ENTRIES + 3):
        store_entry(tmp_path, f"{place:064}", ENTRY)
    assert len(list(tmp_path.iterdir())) == MAX_ENTRIES
    assert load_entry(tmp_path, f"{MAX_ENTRIES + 2:064}") == ENTRY
