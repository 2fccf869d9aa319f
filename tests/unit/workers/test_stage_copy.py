from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from coworkd.workers.stage_copy import copy_attributes, copy_content
from tests.unit.workers.staged_folder import no_step


def copy(source: Path, target: Path) -> None:
    one, other = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    try:
        found = os.fstat(one)
        copy_content(one, other, found.st_size, no_step)
        copy_attributes(one, other, found, uid=os.getuid(), gid=os.getgid())
    finally:
        os.close(one)
        os.close(other)


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_000])
def test_content_mode_and_time_are_copied(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(size))
    source.chmod(0o4711)
    os.utime(source, ns=(1, 2_000_000_000))
    copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert (stat.S_IMODE(target.stat().st_mode), target.stat().st_mtime_ns) == (0o711, 2_000_000_000)


def test_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        for place in (0, 1 << 30, 1 << 33):
            file.seek(place)
            file.write(b"data")
        file.truncate(1 << 34)
    copy(source, target)
    assert (target.stat().st_size, target.stat().st_blocks <= source.stat().st_blocks) == (1 << 34, True)
    with target.open("rb") as copied:
        copied.seek(1 << 33)
        assert copied.read(4) == b"data"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP])
def test_another_way_is_taken_where_the_kernel_cannot_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: int) -> int:
        raise OSError(number, "not here")

    monkeypatch.setattr("coworkd.workers.stage_copy.os.copy_file_range", refuse)
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" * 100_000


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coworkd.workers.stage_copy.os.copy_file_range", full)
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="No space"):
        copy(tmp_path / "a", tmp_path / "b")


def test_a_file_that_becomes_shorter_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    one, other = os.open(tmp_path / "a", os.O_RDONLY), os.open(tmp_path / "b", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="shorter"):
            copy_content(one, other, 10, lambda _: os.truncate(tmp_path / "a", 0))
    finally:
        os.close(one)
        os.close(other)
