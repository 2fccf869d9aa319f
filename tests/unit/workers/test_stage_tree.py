from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.workers.stage_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"f")
    (tmp_path / "d" / "a").write_bytes(b"a")
    with Tree(os.open(tmp_path, os.O_RDONLY)) as made:
        yield made


def test_all_below_is_told_each_directory_before_what_is_in_it(tree: Tree) -> None:
    assert [path for path, _ in tree.below(b"")] == [b"d", b"d/a", b"d/e", b"d/e/f"]
    assert [path for path, _ in tree.below(b"d/e")] == [b"d/e/f"]


def test_what_goes_away_during_a_walk_is_left_out(tree: Tree, tmp_path: Path) -> None:
    seen = []
    for path, _ in tree.below(b""):
        seen.append(path)
        if path == b"d/a":
            (tmp_path / "d" / "e").rename(tmp_path / "elsewhere")
            tree.let_go()
    assert seen == [b"d", b"d/a"]


def test_there_is_nothing_where_the_way_is_no_directory(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("d")
    assert [tree.look(path) for path in (b"d/a/x", b"nothing/x", b"link/a", b"nothing")] == [None] * 4


def test_no_link_is_followed(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("d")
    with pytest.raises(NotADirectoryError):
        tree.directory(b"link")
    assert tree.link(b"link") == b"d"


def test_a_fifo_is_not_waited_for(tree: Tree, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.close(tree.open(b"fifo", os.O_RDONLY))


def test_a_few_directories_are_held_at_most(tree: Tree, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        assert os.fstat(tree.directory(b"%d" % number)).st_ino == (tmp_path / str(number)).stat().st_ino
    assert len(os.listdir("/proc/self/fd")) - before <= 16


def test_a_directory_that_was_forgotten_is_looked_up_anew(tree: Tree, tmp_path: Path) -> None:
    old = os.fstat(tree.directory(b"d")).st_ino
    (tmp_path / "d").rename(tmp_path / "was")
    (tmp_path / "d").mkdir()
    assert os.fstat(tree.directory(b"d")).st_ino == old
    tree.forget(b"d")
    assert os.fstat(tree.directory(b"d")).st_ino != old
