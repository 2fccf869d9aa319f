"""Files written whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_stub.bundle_files import hash_file, no_progress, read_pieces, require_room, shown_bytes, telling, write_whole
from host_stub.words import Trouble


def test_zeros_take_no_room_and_are_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, [b"begin", bytes(4 << 20), b"end", bytes(1 << 20)])
    assert path.read_bytes() == b"begin" + bytes(4 << 20) + b"end" + bytes(1 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Trouble) as caught, telling("writing", path):
        write_whole(path, pieces())
    assert caught.value.code == "no_space"
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


def test_what_a_killed_one_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"half")
    write_whole(tmp_path / "file", [b"whole"])
    assert os.listdir(tmp_path) == ["file"]


def test_progress_is_told_and_ends_at_the_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    told: list[tuple[str, int, int]] = []
    size, digest = hash_file(path, "checking", lambda *words: told.append(words))
    assert (size, digest) == (3 << 20, hashlib.sha256(bytes(3 << 20)).hexdigest())
    assert told == [("checking", (n + 1) << 20, 3 << 20) for n in range(3)]
    assert b"".join(read_pieces(path, "", no_progress)) == bytes(3 << 20)


def test_room_is_asked_for_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(tmp_path, 0, what="nothing")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(100 << 20))
    with pytest.raises(Trouble, match=r"the image takes 200 MiB, and .* has only 100 MiB free") as caught:
        require_room(tmp_path, 200 << 20, what="the image")
    assert caught.value.code == "no_space"


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, "no_permission"),
        (errno.ENOENT, "no_file"),
        (errno.EIO, "disk_failed"),
        (errno.EDQUOT, "no_space"),
    ],
)
def test_errors_of_the_disk_become_troubles(number: int, code: str) -> None:
    with pytest.raises(Trouble, match="reading /x failed") as caught, telling("reading", Path("/x")):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code


@pytest.mark.parametrize(("count", "said"), [(1024, "1 KiB"), (64 << 20, "64 MiB"), (10 << 30, "10.0 GiB")])
def test_sizes_as_people_say_them(count: int, said: str) -> None:
    assert shown_bytes(count) == said
