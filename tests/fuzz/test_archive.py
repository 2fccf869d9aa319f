"""Fuzz: archives of any bytes, in any pieces, give entries or an error and nothing else; what is written is what is read."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.archive.entry import ArchiveError, Entry
from coworkd.archive.reader import Data, Reader
from coworkd.archive.unpack import Unpack
from coworkd.archive.writer import END, compose_entry, padding

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name)
ENTRIES = st.builds(
    Entry,
    path=NAMES.filter(lambda name: not name.endswith(b"/")),
    kind=st.sampled_from(["file", "symlink", "hardlink"]),
    mode=st.integers(0, 0o777),
    mtime_ns=st.integers(-(2**62), 2**62),
    target=NAMES,
)
ODD_NAMES = st.lists(st.sampled_from([b"..", b".", b"", b"a", b"l", b"outside", b"keep"]), min_size=1, max_size=4).map(
    b"/".join
)
ODD_ENTRIES = st.builds(
    Entry,
    path=ODD_NAMES.filter(bool),
    kind=st.sampled_from(["file", "directory", "symlink", "hardlink"]),
    mode=st.integers(0, 0o7777).map(lambda mode: mode | 0o700),
    target=st.one_of(ODD_NAMES.filter(bool), st.sampled_from([b"../outside", b"/tmp", b"."])),
)


def read(data: bytes, cuts: list[int]) -> tuple[list[Entry], bytes, bool]:
    """The entries, all data together, and whether the archive was whole."""
    reader = Reader()
    entries, content = [], bytearray()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    try:
        for begin, end in itertools.pairwise(places):
            reader.receive_data(data[begin:end])
            while (event := reader.next_event()) is not None:
                if isinstance(event, Entry):
                    entries.append(event)
                elif isinstance(event, Data):
                    content += event.data
        reader.check_end()
    except ArchiveError:
        return entries, bytes(content), False
    return entries, bytes(content), True


def written(entries: list[tuple[Entry, bytes]]) -> tuple[list[Entry], bytes]:
    told, data = [], bytearray()
    for entry, content in entries:
        size = len(content) if entry.kind == "file" else 0
        whole = Entry(
            path=entry.path,
            kind=entry.kind,
            mode=entry.mode & 0o777,
            size=size,
            mtime_ns=entry.mtime_ns,
            target=b"" if entry.kind in ("file", "directory") else entry.target,
        )
        told.append(whole)
        data += compose_entry(whole) + content[:size] + padding(size)
    return told, bytes(data + END)


@given(st.lists(st.tuples(ENTRIES, st.binary(max_size=1500)), max_size=4), st.lists(st.integers(0, 20_000), max_size=6))
def test_what_is_written_is_read_in_any_pieces(entries: list[tuple[Entry, bytes]], cuts: list[int]) -> None:
    told, data = written(entries)
    assert read(data, cuts) == (told, b"".join(content for entry, content in entries if entry.kind == "file"), True)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(ENTRIES, st.binary(max_size=600)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 20_000),
    st.lists(st.integers(0, 20_000), max_size=4),
)
def test_damage_gives_the_same_in_any_pieces(
    entries: list[tuple[Entry, bytes]], damage: list[tuple[int, int]], cut: int, cuts: list[int]
) -> None:
    data = bytearray(written(entries)[1])
    for position, value in damage:
        data[position % len(data)] = value
    broken = bytes(data[: cut % (len(data) + 1)])
    assert read(broken, cuts) == read(broken, [])


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=4))
def test_any_bytes_give_an_error_or_an_end_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    assert read(data, cuts) == read(data, [])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ODD_ENTRIES, st.binary(max_size=20)), min_size=1, max_size=8))
def test_whatever_an_archive_says_nothing_outside_is_touched(entries: list[tuple[Entry, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "top").mkdir()
        (base / "outside").mkdir()
        (base / "outside/keep").write_bytes(b"kept")
        (base / "top/l").symlink_to("../outside")
        before = _seen(base / "outside")
        top = os.open(base / "top", os.O_RDONLY)
        try:
            with Unpack(top, entries_limit=100) as unpack:
                unpack.receive_data(written(entries)[1])
                unpack.finish()
        except (ArchiveError, OSError):
            pass
        finally:
            os.close(top)
        assert sorted(os.listdir(base)) == ["outside", "top"]
        assert _seen(base / "outside") == before
        assert [found for _, _, names in os.walk(base) for found in names if found.startswith(".coworkd-")] == []


def _seen(directory: Path) -> object:
    seen = os.stat(directory / "keep")
    own = os.stat(directory)
    content = (directory / "keep").read_bytes()
    return os.listdir(directory), content, seen.st_mode, seen.st_nlink, seen.st_mtime_ns, own.st_mode, own.st_mtime_ns
