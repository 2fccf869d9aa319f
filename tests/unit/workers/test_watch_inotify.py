"""`workers.watch_inotify`: trees, watched directory by directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.workers.watch_inotify import InotifyTrees
from coworkd.workers.watch_trees import Tree

Told = tuple[str, bytes, bytes]


@pytest.fixture
def trees() -> Iterator[InotifyTrees]:
    made = InotifyTrees()
    yield made
    made.close()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("d/e", "other"):
        (tmp_path / "top" / name).mkdir(parents=True)
    (tmp_path / "top" / "d" / "e" / "file").write_text("x")
    return tmp_path / "top"


def _watch(trees: InotifyTrees, path: Path, watch: int = 1, *, staged: bool = False) -> int:
    return trees.add(Tree(watch, os.fsencode(path), staged=staged))


def _read(trees: InotifyTrees) -> list[Told]:
    seen, missed = trees.read()
    assert not missed
    return [(each.change.change, each.change.path, each.change.to) for each in seen]


def test_nothing_happened(trees: InotifyTrees, top: Path) -> None:
    assert _watch(trees, top) == 0
    assert _read(trees) == []


def test_changes_deep_below_are_seen(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top)
    (top / "d" / "e" / "new\n").write_text("abc")
    (top / "d" / "e" / "file").unlink()
    seen, _ = trees.read()
    assert [(each.change.change, each.change.path, each.change.size) for each in seen] == [
        ("create", b"d/e/new\n", -1),
        ("write", b"d/e/new\n", 3),
        ("delete", b"d/e/file", -1),
    ]
    assert {(each.watch, each.ancestry) for each in seen} == {(1, ())}


def test_what_is_made_in_a_new_directory_is_seen_once_it_is_watched(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top)
    (top / "n" / "m").mkdir(parents=True)
    (top / "n" / "m" / "early").touch()
    assert sorted(_read(trees)) == [("create", b"n/m/early", b""), ("mkdir", b"n", b""), ("mkdir", b"n/m", b"")]
    (top / "n" / "m" / "late").touch()
    assert ("create", b"n/m/late", b"") in _read(trees)


def test_a_rename_is_one_change_and_what_is_below_has_its_new_path(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top)
    (top / "d").rename(top / "other" / "moved")
    assert _read(trees) == [("rename", b"d", b"other/moved")]
    (top / "other" / "moved" / "e" / "file").unlink()
    assert _read(trees) == [("delete", b"other/moved/e/file", b"")]


def test_what_is_moved_out_is_gone_and_what_comes_in_is_new(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top)
    (top / "d").rename(top.parent / "away")
    assert _read(trees) == [("rmdir", b"d", b"")]
    (top.parent / "away" / "e" / "file").unlink()
    assert _read(trees) == []
    (top.parent / "away").rename(top / "back")
    assert ("mkdir", b"back", b"") in _read(trees)
    (top / "back" / "e" / "x").touch()
    assert ("create", b"back/e/x", b"") in _read(trees)


def test_a_tree_that_is_deleted_is_forgotten(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top)
    shutil.rmtree(top / "d")
    told = _read(trees)
    assert ("delete", b"d/e/file", b"") in told
    assert told[-1] == ("rmdir", b"d", b"")
    (top / "d" / "e").mkdir(parents=True)
    assert {path for _, path, _ in _read(trees)} == {b"d", b"d/e"}


def test_two_trees_see_the_same_directory_by_their_own_paths(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top, 1)
    _watch(trees, top / "d", 2)
    (top / "d" / "x").touch()
    seen, _ = trees.read()
    told = {(each.watch, each.change.path) for each in seen if each.change.change == "create"}
    assert told == {(1, b"d/x"), (2, b"x")}
    assert trees.remove(1)
    assert not trees.remove(1)
    (top / "d" / "y").touch()
    seen, _ = trees.read()
    assert {(each.watch, each.change.path) for each in seen} == {(2, b"y")}


def test_of_a_single_file_only_that_is_seen(trees: InotifyTrees, top: Path) -> None:
    _watch(trees, top / "d" / "e" / "file")
    (top / "d" / "e" / "beside").touch()
    (top / "d" / "e" / "file").write_text("longer")
    seen, _ = trees.read()
    assert [(each.change.change, each.change.path, each.change.size) for each in seen] == [("write", b"", 6)]


def test_directories_beyond_the_bound_are_counted(top: Path) -> None:
    trees = InotifyTrees(limit=2)
    for number in range(4):
        (top / f"n{number}").mkdir()
    assert _watch(trees, top) == 5
    trees.close()


def test_what_cannot_be_watched_leaves_nothing(trees: InotifyTrees, top: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _watch(trees, top / "nothing")
    assert trees.watches == ()
