from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.system.beneath import DIRECTORY, RENAME_EXCHANGE, RENAME_NOREPLACE, open_beneath, renameat2, syncfs
from coworkd.system.remove_tree import remove_tree


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_open_beneath_opens_the_directory_itself(tmp_path: Path, root: int) -> None:
    fd = open_beneath(root, b"", DIRECTORY)
    assert os.fstat(fd).st_ino == tmp_path.stat().st_ino
    os.close(fd)


def test_open_beneath_goes_deeper_than_one_path_may_be_long(tmp_path: Path, root: int) -> None:
    name = b"d" * 200
    held = os.dup(root)
    for _ in range(60):
        os.mkdir(name, dir_fd=held)
        below = os.open(name, DIRECTORY, dir_fd=held)
        os.close(held)
        held = below
    os.close(os.open("found", os.O_WRONLY | os.O_CREAT, dir_fd=held))
    os.close(held)
    os.close(open_beneath(root, b"/".join([name] * 60) + b"/found", os.O_RDONLY))
    remove_tree(str(tmp_path / name.decode()))  # pytest cannot


@pytest.mark.parametrize("path", [b"link/file", b"link"])
def test_open_beneath_follows_no_link(tmp_path: Path, root: int, path: bytes) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError) as raised:
        open_beneath(root, path, os.O_RDONLY)
    assert raised.value.errno == errno.ELOOP


def test_open_beneath_does_not_leave_the_directory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    fd = os.open(tmp_path / "in", DIRECTORY)
    with pytest.raises(OSError) as raised:
        open_beneath(fd, b"../in", os.O_RDONLY)
    os.close(fd)
    assert raised.value.errno == errno.EXDEV


def test_renameat2_replaces_nothing_where_it_must_not(tmp_path: Path, root: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        renameat2(root, b"a", root, b"b", RENAME_NOREPLACE)
    assert (tmp_path / "b").read_bytes() == b"b"


def test_renameat2_exchanges_a_file_and_a_directory(tmp_path: Path, root: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").mkdir()
    renameat2(root, b"a", root, b"b", RENAME_EXCHANGE)
    assert (tmp_path / "a").is_dir()
    assert (tmp_path / "b").read_bytes() == b"a"


def test_syncfs_takes_any_descriptor_of_the_file_system(root: int) -> None:
    syncfs(root)
    with pytest.raises(OSError):
        syncfs(-1)
