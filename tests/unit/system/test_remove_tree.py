"""Trees as somebody with time and ill will would leave them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coworkd.system.remove_tree import remove_tree

_REPO = Path(__file__).resolve().parents[3]


def make_deep(directory: Path, levels: int) -> None:
    """Directories within each other, a file at every level, made without ever naming a long path."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.mkdir("down", dir_fd=fd)
        below = os.open("down", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_remove_tree_removes_files_and_directories(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"x" * 10_000)
    freed_bytes = remove_tree(str(tree))
    assert not tree.exists()
    assert 10_000 <= freed_bytes < 100_000


def test_remove_tree_removes_what_is_deeper_than_any_recursion(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_deep(tree, 3000)
    remove_tree(str(tree))
    assert not tree.exists()


def test_remove_tree_follows_no_link(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "kept").touch()
    (tree / "directory").symlink_to(outside)
    (tree / "file").symlink_to(outside / "kept")
    remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_remove_tree_refuses_a_link_as_the_top(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / "tree").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        remove_tree(str(tmp_path / "tree"))
    assert (outside / "kept").exists()


def test_remove_tree_removes_names_that_are_no_text(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / os.fsdecode(b"\xff\n")).mkdir(parents=True)
    remove_tree(str(tree))
    assert not tree.exists()


def test_remove_tree_takes_one_that_is_gone(tmp_path: Path) -> None:
    assert remove_tree(str(tmp_path / "never")) == 0


@pytest.mark.needs("mountns")
def test_remove_tree_enters_nothing_that_is_mounted_in_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a" / "mounted").mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "kept").touch()
    program = (
        "import errno, subprocess, sys\n"
        "from coworkd.system.remove_tree import remove_tree\n"
        "subprocess.run(('mount', '--bind', sys.argv[2], sys.argv[1] + '/a/mounted'), check=True)\n"
        "try:\n"
        "    remove_tree(sys.argv[1])\n"
        "except OSError as error:\n"
        "    sys.exit(0 if error.errno == errno.EXDEV else 3)\n"
    )
    argv = ("unshare", "--mount", "--propagation", "private", sys.executable, "-c", program)
    ended = subprocess.run((*argv, str(tmp_path / "tree"), str(tmp_path / "disk")), cwd=_REPO, check=False)
    assert ended.returncode == 0
    assert (tmp_path / "disk" / "kept").exists()
