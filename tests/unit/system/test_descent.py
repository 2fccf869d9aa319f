import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.system.descent import Descent


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "file").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_it_goes_down_and_comes_up_where_it_was(top: int) -> None:
    with Descent(top) as place:
        place.enter(b"a")
        place.enter(b"b")
        assert (place.depth, os.listdir(place.fd)) == (2, [])
        place.leave()
        assert os.listdir(place.fd) == ["b"]
        place.leave()
        assert sorted(os.listdir(place.fd)) == ["a", "file", "link"]


@pytest.mark.parametrize(
    ("name", "number"), [(b"link", errno.ENOTDIR), (b"file", errno.ENOTDIR), (b"none", errno.ENOENT)]
)
def test_what_is_no_directory_is_not_entered(top: int, name: bytes, number: int) -> None:
    with Descent(top) as place:
        with pytest.raises(OSError, match="irectory") as caught:
            place.enter(name)
        assert caught.value.errno == number
        assert place.depth == 0
        place.enter(b"a")


def test_a_directory_that_was_moved_is_not_come_up_from(top: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with Descent(top) as place:
        place.enter(b"a")
        place.enter(b"b")
        os.rename(tmp_path / "a/b", tmp_path / "elsewhere/b")
        with pytest.raises(OSError, match="moved") as caught:
            place.leave()
        assert caught.value.errno == errno.ESTALE


def test_one_descriptor_is_open_however_deep_it_is(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    top = os.open(tmp_path, os.O_RDONLY)
    with Descent(top) as place:
        for _ in range(2000):
            os.mkdir(b"d" * 100, dir_fd=place.fd)
            place.enter(b"d" * 100)
        assert len(os.listdir("/proc/self/fd")) == before + 2
        while place.depth:
            place.leave()
            os.rmdir(b"d" * 100, dir_fd=place.fd)
    os.close(top)
    assert len(os.listdir("/proc/self/fd")) == before
