from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.workers.stage_baseline import UNKNOWN, Baseline
from coworkd.workers.stage_entries import Ident
from coworkd.workers.stage_since import Since

NOTHING = Baseline(None)
ONE = Ident("file", 0o644, 1, 2, 3, 4)
TWO = Ident("symlink", 0o777, 5, 6, 7, 8)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def find(stage: int, *paths: bytes) -> list[object]:
    since = Since(stage)
    try:
        return [since.find(path, NOTHING) for path in paths]
    finally:
        since.close()


def note(stage: int, **entries: Ident | None) -> None:
    since = Since(stage)
    for name, ident in entries.items():
        since.note(name.encode(), ident)
    since.sync()
    since.close()


def test_what_was_noted_is_found_and_the_last_word_holds(stage: int) -> None:
    note(stage, a=ONE, b=None)
    note(stage, a=TWO)
    assert find(stage, b"a", b"b", b"c") == [TWO, None, UNKNOWN]


def test_a_record_that_was_cut_off_ends_what_is_read_and_is_written_over(stage: int, tmp_path: Path) -> None:
    note(stage, a=ONE)
    whole = (tmp_path / "since").stat().st_size
    note(stage, b=ONE)
    os.truncate(tmp_path / "since", whole + 11)
    assert find(stage, b"a", b"b") == [ONE, UNKNOWN]
    note(stage, c=TWO)
    assert find(stage, b"a", b"b", b"c") == [ONE, UNKNOWN, TWO]


def test_a_record_that_was_damaged_ends_what_is_read(stage: int, tmp_path: Path) -> None:
    note(stage, a=ONE)
    whole = (tmp_path / "since").stat().st_size
    note(stage, b=ONE)
    data = bytearray((tmp_path / "since").read_bytes())
    data[whole + 9] ^= 1
    (tmp_path / "since").write_bytes(data)
    assert find(stage, b"a", b"b") == [ONE, UNKNOWN]


def test_a_full_disk_is_no_reason_to_fail(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("coworkd.workers.stage_since.os.pwrite", full)
        note(stage, a=ONE)
    note(stage, b=TWO)
    assert find(stage, b"a", b"b") == [UNKNOWN, TWO]


def test_another_fault_of_the_disk_is_told(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    since = Since(stage)
    since.note(b"a", ONE)
    monkeypatch.setattr("coworkd.workers.stage_since.os.pwrite", broken)
    with pytest.raises(OSError, match="Input/output"):
        since.sync()
    since.close()
