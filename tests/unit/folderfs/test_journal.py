import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.folderfs import journal
from coworkd.folderfs.journal import BLOCK_BYTES, JournaledNames, compose_frame, parse_journal
from coworkd.folderfs.names import Identity, OwnNames

ONE, TWO = Identity(1, 10), Identity(2, 20, borrowed=True)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "journal", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def test_everything_is_read_again(fd: int) -> None:
    first = JournaledNames(fd)
    first.add((b"a",), ONE)
    first.add((b"d", b"\xff\n"), TWO)
    first.add((b"gone",), ONE)
    first.remove((b"gone",))
    first.move((b"a",), (b"d", b"b"), ONE)
    first.add((b"x",), ONE)
    first.swap((b"x",), (b"d",), None, None)
    first.add((b"y",), ONE)
    first.disown((b"y",))
    again = JournaledNames(fd)
    assert dict(again.names) == dict(first.names) == {(b"x", b"b"): ONE, (b"x", b"\xff\n"): TWO}


def test_what_is_not_known_is_not_written(fd: int) -> None:
    names = JournaledNames(fd)
    names.remove((b"a",))
    names.disown((b"a",))
    names.move((b"a",), (b"b",), None)
    names.swap((b"a",), (b"b",), None, None)
    assert os.fstat(fd).st_size == 0


def test_a_cut_frame_is_the_end_and_is_written_over(fd: int) -> None:
    first = JournaledNames(fd)
    first.add((b"a",), ONE)
    length = os.fstat(fd).st_size
    first.add((b"b",), ONE)
    os.ftruncate(fd, os.fstat(fd).st_size - 1)
    again = JournaledNames(fd)
    assert list(again.names) == [((b"a",), ONE)]
    assert os.fstat(fd).st_size == length
    again.add((b"c",), TWO)
    assert dict(JournaledNames(fd).names) == {(b"a",): ONE, (b"c",): TWO}


@pytest.mark.parametrize("fill", [BLOCK_BYTES, BLOCK_BYTES - 1, BLOCK_BYTES - 7, BLOCK_BYTES - 8, BLOCK_BYTES + 1])
def test_compacting_keeps_all_and_lets_go_of_the_rest(fd: int, fill: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = JournaledNames(fd)
    names.add((b"kept",), ONE)
    frame = len(compose_frame(journal.Removed((b"",))))
    names.add((b"x" * (fill - os.fstat(fd).st_size - frame),), ONE)
    monkeypatch.setattr(journal, "COMPACT_BYTES", 0)
    monkeypatch.setattr(journal, "_WASTE", 0)
    names.add((b"last",), ONE)
    again = JournaledNames(fd)
    assert dict(again.names) == dict(names.names)
    assert len(dict(again.names)) == 3


def test_a_journal_stays_small(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 20_000)
    names = JournaledNames(fd)
    names.add((b"kept",), ONE)
    for number in range(5000):
        names.add((b"temporary-%d" % number,), ONE)
        names.remove((b"temporary-%d" % number,))
    assert os.fstat(fd).st_blocks * 512 < 100_000
    assert dict(JournaledNames(fd).names) == {(b"kept",): ONE}


def test_without_room_it_goes_on_in_memory_and_catches_up(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = JournaledNames(fd)
    write = os.pwrite

    def full(number: int, data: bytes, offset: int) -> int:
        write(number, data[:3], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    names.add((b"a",), ONE)
    assert names.behind
    assert names.names.get((b"a",)) == ONE
    assert list(JournaledNames(fd).names) == []
    monkeypatch.setattr(os, "pwrite", write)
    for number in range(300):
        names.add((b"%d" % number,), ONE)
    assert not names.behind
    assert dict(JournaledNames(fd).names) == dict(names.names)


def test_a_name_that_became_the_users_without_room_is_no_own_one_after_a_restart(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = JournaledNames(fd)
    for name in (b"letter", b"own", b"kept"):
        names.add((name,), ONE)
    write = os.pwrite

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    names.add((b"more",), ONE)
    names.remove((b"own",))
    assert dict(JournaledNames(fd).names).keys() == {(b"letter",), (b"own",), (b"kept",)}
    names.disown((b"letter",))
    assert JournaledNames(fd).names.get((b"letter",)) is None
    monkeypatch.setattr(os, "pwrite", write)
    for number in range(300):
        names.add((b"%d" % number,), ONE)
    assert dict(JournaledNames(fd).names) == dict(names.names)


@pytest.mark.parametrize("target", [b"letter", b"other"])
def test_what_gives_back_is_durable(fd: int, monkeypatch: pytest.MonkeyPatch, target: bytes) -> None:
    synced: list[int] = []
    names = JournaledNames(fd)
    names.add((b"letter",), ONE)
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(os.fstat(fd).st_size))
    before = os.fstat(fd).st_size
    names.disown((target,))
    assert synced == ([os.fstat(fd).st_size] if target == b"letter" else [])
    assert os.fstat(fd).st_size > before or not synced


def test_long_paths_are_not_written_anew_all_the_time(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 20_000)
    compact, times = JournaledNames._compact, 0

    def count(names: JournaledNames) -> None:
        nonlocal times
        times += 1
        compact(names)

    monkeypatch.setattr(JournaledNames, "_compact", count)
    names = JournaledNames(fd)
    for number in range(1000):
        names.add((b"x" * 250, b"y" * 250, b"%d" % number), ONE)
    assert 0 < times < 10
    assert dict(JournaledNames(fd).names) == dict(names.names)


def test_rubbish_is_an_empty_journal(fd: int) -> None:
    os.write(fd, b"\x05\x00\x00\x00rubbish that is no frame")
    names = JournaledNames(fd)
    assert names.names.count == 0
    assert os.fstat(fd).st_size == 0


@pytest.mark.parametrize("payload", [b"\xc1", b"\x92\xa1\xff\x90", b"\x91" * 5000])
def test_a_frame_that_is_whole_and_says_nothing_ends_it(payload: bytes) -> None:
    """The second has a text that is no UTF-8."""
    good = compose_frame(journal.Added((b"a",), ONE))
    frame = journal._FRAME.pack(len(payload), zlib.crc32(payload)) + payload
    read, end = parse_journal(good + frame, OwnNames())
    assert list(read) == [((b"a",), ONE)]
    assert end == len(good)


def test_a_gap_that_is_none_ends_it() -> None:
    good = compose_frame(journal.Added((b"a",), ONE))
    read, end = parse_journal(good + bytes(10) + b"x" + bytes(5000), OwnNames())
    assert list(read) == [((b"a",), ONE)]
    assert end == len(good)


def test_without_a_file_nothing_is_kept() -> None:
    names = JournaledNames(None)
    names.add((b"a",), ONE)
    assert names.names.get((b"a",)) == ONE
