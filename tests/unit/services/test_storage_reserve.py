"""What is held back for a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coworkd.services.storage_reserve import STEP_BYTES, Reserve


def reserve(place: Path, size_bytes: int = 4 * STEP_BYTES, inodes: int = 3) -> Reserve:
    made = Reserve(str(place), size_bytes=size_bytes, inodes=inodes)
    assert made.refill()
    return made


def held(place: Path) -> tuple[int, int]:
    """Bytes and files."""
    files = list((place / "reserve").iterdir())
    return (place / "reserve" / "blocks").stat().st_blocks * 512, len(files)


def test_it_is_really_there(tmp_path: Path) -> None:
    made = reserve(tmp_path)
    assert made.missing is None
    assert held(tmp_path) == (4 * STEP_BYTES, 4)
    assert (tmp_path / "reserve").stat().st_mode & 0o777 == 0o700


def test_it_is_given_up_step_by_step_and_then_there_is_none(tmp_path: Path) -> None:
    made = reserve(tmp_path)
    assert made.release()
    assert held(tmp_path) == (3 * STEP_BYTES, 3)
    assert made.missing is not None
    assert [made.release() for _ in range(4)] == [True, True, True, False]
    assert held(tmp_path) == (0, 1)


def test_it_is_taken_back_whole(tmp_path: Path) -> None:
    made = reserve(tmp_path)
    made.release()
    made.release()
    assert made.refill()
    assert held(tmp_path) == (4 * STEP_BYTES, 4)


def test_it_is_not_taken_back_while_there_is_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reserve(tmp_path)
    made.release()
    real = os.statvfs(tmp_path)
    fields = list(real)
    fields[4] = 4 * STEP_BYTES * 3 // real.f_frsize  # f_bavail: three times the reserve
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert not made.refill()
    assert made.missing == "there is no room for it"
    assert held(tmp_path)[0] == 3 * STEP_BYTES


def test_one_that_is_there_from_before_is_taken_over_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(tmp_path)
    fields = list(os.statvfs(tmp_path))
    fields[4] = fields[7] = 0
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    again = Reserve(str(tmp_path), size_bytes=4 * STEP_BYTES, inodes=3)
    assert again.refill()


def test_one_that_cannot_be_had_is_told_and_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "reserve").write_text("in the way")
    made = Reserve(str(tmp_path))
    assert not made.refill()
    assert "cannot be taken" in (made.missing or "")
    assert not made.release()


def test_what_met_a_full_disk_is_tried_again_until_it_is_done(tmp_path: Path) -> None:
    made = reserve(tmp_path)
    tries: list[int] = []

    def call() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "full")
        return "written"

    assert made.retry(call) == "written"
    assert held(tmp_path)[0] == 2 * STEP_BYTES


@pytest.mark.parametrize(("number", "left"), [(errno.ENOSPC, 0), (errno.EIO, 4 * STEP_BYTES)])
def test_what_no_room_helps_is_raised(tmp_path: Path, number: int, left: int) -> None:
    made = reserve(tmp_path)

    def call() -> None:
        raise OSError(number, "no")

    with pytest.raises(OSError) as caught:
        made.retry(call)
    assert caught.value.errno == number
    assert held(tmp_path)[0] == left
