from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.workers.stage_remove import Stays, remove_all, remove_entry, remove_unfinished
from coworkd.workers.stage_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"f")
    (tmp_path / "d" / "g").symlink_to("/etc")
    with Tree(os.open(tmp_path, os.O_RDONLY)) as made:
        yield made


def may_go(path: bytes, found: os.stat_result) -> None:
    """Everything may."""


def test_a_directory_goes_from_below_and_each_entry_is_told(tree: Tree, tmp_path: Path) -> None:
    gone: list[bytes] = []
    remove_all(tree, b"d", (tmp_path / "d").stat(), may_go=may_go, gone=gone.append)
    assert (gone, list(tmp_path.iterdir())) == ([b"d/e/f", b"d/g", b"d/e", b"d"], [])


def test_what_may_not_go_stays_with_what_it_lies_in(tree: Tree, tmp_path: Path) -> None:
    def judge(path: bytes, found: os.stat_result) -> str | None:
        return "it is dear to somebody" if path == b"d/g" else None

    with pytest.raises(Stays, match="dear"):
        remove_all(tree, b"d", (tmp_path / "d").stat(), may_go=judge, gone=lambda path: None)
    assert (tmp_path / "d" / "g").is_symlink()


def test_what_is_put_in_meanwhile_stays(tree: Tree, tmp_path: Path) -> None:
    def fill(path: bytes, found: os.stat_result) -> None:
        if path == b"d/e":
            (tmp_path / "d" / "e" / "late").write_bytes(b"x")

    with pytest.raises(Stays, match="put into it"):
        remove_all(tree, b"d", (tmp_path / "d").stat(), may_go=fill, gone=lambda path: None)
    assert (tmp_path / "d" / "e" / "late").read_bytes() == b"x"


def test_another_entry_of_the_same_name_stays(tree: Tree, tmp_path: Path) -> None:
    def exchange(path: bytes, found: os.stat_result) -> None:
        if path == b"d/e/f":
            (tmp_path / "d" / "e" / "f").rename(tmp_path / "kept")
            (tmp_path / "d" / "e" / "f").write_bytes(b"another")

    with pytest.raises(Stays):
        remove_all(tree, b"d", (tmp_path / "d").stat(), may_go=exchange, gone=lambda path: None)
    assert (tmp_path / "d" / "e" / "f").read_bytes() == b"another"


def test_unfinished_entries_go_where_they_were_said_to_be(tree: Tree, tmp_path: Path) -> None:
    for place in ("", "d", "d/e"):
        (tmp_path / place / ".mine-1").write_bytes(b"x")
    (tmp_path / "d" / ".mine-2").mkdir()
    (tmp_path / "d" / ".mine-2" / "in").write_bytes(b"x")
    assert remove_unfinished(tree, (b"d", b"none", b"d/g"), b".mine-") == 2
    assert sorted(os.listdir(tmp_path / "d")) == ["e", "g"]
    assert remove_unfinished(tree, None, b".mine-") == 2
    assert (sorted(os.listdir(tmp_path)), os.listdir(tmp_path / "d" / "e")) == (["d"], ["f"])


def test_removing_a_link_leaves_what_it_leads_to(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")
    remove_entry(tree.root_fd, b"link")
    remove_entry(tree.root_fd, b"nothing")
    assert sorted(os.listdir(tmp_path)) == ["d", "outside"]
