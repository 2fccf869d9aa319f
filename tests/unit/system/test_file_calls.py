import errno
import os
from pathlib import Path

import pytest

from coworkd.system import file_calls


@pytest.fixture
def directory(tmp_path: Path) -> int:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    return os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)


def test_inode_and_birth_are_of_the_name_itself(directory: int, tmp_path: Path) -> None:
    inode, born = file_calls.inode_and_birth(directory, b"a")
    assert inode == (tmp_path / "a").stat().st_ino
    assert born == 0 or abs(born - (tmp_path / "a").stat().st_mtime_ns) < 60_000_000_000
    os.symlink("a", tmp_path / "link")
    assert file_calls.inode_and_birth(directory, b"link")[0] == (tmp_path / "link").lstat().st_ino
    assert file_calls.inode_and_birth(directory, b"")[0] == tmp_path.stat().st_ino
    with pytest.raises(FileNotFoundError):
        file_calls.inode_and_birth(directory, b"missing")
    os.close(directory)


def test_rename_with_flags(directory: int, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        file_calls.renameat2(directory, b"a", directory, b"b", file_calls.RENAME_NOREPLACE)
    file_calls.renameat2(directory, b"a", directory, b"b", file_calls.RENAME_EXCHANGE)
    assert (tmp_path / "a").read_text() == "b"
    os.close(directory)


def test_fallocate(directory: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "a", os.O_RDWR)
    file_calls.fallocate(fd, 0, 0, 5_000_000_000 % 2**20)
    assert os.fstat(fd).st_size == 5_000_000_000 % 2**20
    with pytest.raises(OSError) as caught:
        file_calls.fallocate(fd, 0, 0, -1)
    assert caught.value.errno == errno.EINVAL
    os.close(fd)
    os.close(directory)
