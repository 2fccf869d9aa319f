"""The session disk's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_stub import session_disk
from host_stub.words import Trouble

SIZE = 64 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.img"
    session_disk.create(path, SIZE)
    return path


def test_a_new_disk_is_blank_and_sparse(disk: Path) -> None:
    assert session_disk.look_at(disk) == (SIZE, 0)
    assert disk.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_there_is_never_made_again(disk: Path) -> None:
    disk.write_bytes(b"sessions")
    with pytest.raises(Trouble) as caught:
        session_disk.create(disk, SIZE)
    assert (caught.value.code, disk.read_bytes()) == ("session_disk_there", b"sessions")


def test_growing_keeps_what_is_on_it(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.write(b"sessions")
    assert session_disk.grow(disk, 2 * SIZE).size_bytes == 2 * SIZE
    assert session_disk.grow(disk, 2 * SIZE).size_bytes == 2 * SIZE
    assert disk.read_bytes()[:9] == b"sessions\0"


def test_a_disk_is_never_made_smaller(disk: Path) -> None:
    session_disk.grow(disk, 2 * SIZE)
    with pytest.raises(Trouble) as caught:
        session_disk.grow(disk, SIZE)
    assert (caught.value.code, disk.stat().st_size) == ("would_shrink", 2 * SIZE)


@pytest.mark.parametrize("size", [0, -1, SIZE + 1, SIZE // 2, 1 << 60])
def test_a_size_that_cannot_be_is_refused(disk: Path, tmp_path: Path, size: int) -> None:
    for attempt in (lambda: session_disk.grow(disk, size), lambda: session_disk.create(tmp_path / "other", size)):
        with pytest.raises(Trouble) as caught:
            attempt()
        assert caught.value.code == "bad_size"
    assert not (tmp_path / "other").exists()


def test_a_disk_that_is_gone_is_told_and_not_replaced(disk: Path) -> None:
    disk.unlink()
    for look in (session_disk.look_at, lambda path: session_disk.grow(path, SIZE)):
        with pytest.raises(Trouble, match="--new-session-disk") as caught:
            look(disk)
        assert caught.value.code == "no_session_disk"
    assert not disk.exists()


def test_a_cut_off_disk_and_what_is_no_file_are_told(disk: Path) -> None:
    disk.write_bytes(b"x")
    with pytest.raises(Trouble, match="cut off"):
        session_disk.look_at(disk)
    disk.unlink()
    disk.symlink_to("elsewhere")
    with pytest.raises(Trouble, match="no plain file"):
        session_disk.look_at(disk)
