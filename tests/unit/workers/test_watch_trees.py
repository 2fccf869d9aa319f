"""`workers.watch_trees`: where a directory lies in a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.workers.watch_trees import Place, Tree, is_whiteout, path_of


def test_a_place_is_relative_to_the_top(tmp_path: Path) -> None:
    tree = Tree(1, os.fsencode(tmp_path), staged=False)
    top = os.fsencode(tmp_path)
    assert tree.place(top) == Place(tree, b"")
    assert tree.place(top + b"/a/b") == Place(tree, b"a/b")
    assert tree.place(top + b"x") is None
    assert tree.place(b"/") is None
    tree.close()


def test_an_entry_has_the_path_of_its_place(tmp_path: Path) -> None:
    tree = Tree(1, os.fsencode(tmp_path), staged=False)
    assert Place(tree, b"").join(b"a") == b"a"
    assert Place(tree, b"d").join(b"a") == b"d/a"
    assert Place(tree, b"d").join(b".") == b"d"
    tree.close()


def test_of_a_single_file_nothing_beside_it_is_seen(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tree = Tree(1, os.fsencode(tmp_path / "file"), staged=False)
    place = tree.place(os.fsencode(tmp_path))
    assert place is not None
    assert (place.join(b"file"), place.join(b"other")) == (b"", None)
    assert Place(tree, b"d").join(b"file") is None
    tree.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    tree = Tree(1, os.fsencode(tmp_path / "link"), staged=False)
    assert (tree.path, tree.only) == (os.fsencode(tmp_path), b"link")
    tree.close()
    with pytest.raises(FileNotFoundError):
        Tree(1, os.fsencode(tmp_path / "nothing"), staged=False)


def test_a_tree_that_was_moved_has_its_new_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    tree = Tree(1, os.fsencode(tmp_path / "a"), staged=False)
    (tmp_path / "a").rename(tmp_path / "b")
    tree.look()
    assert tree.path == os.fsencode(tmp_path / "b")
    tree.close()


def test_a_directory_that_was_deleted_has_the_path_it_had(tmp_path: Path) -> None:
    for name in ("a", "a (deleted)"):
        (tmp_path / name).mkdir()
        fd = os.open(tmp_path / name, os.O_RDONLY)
        assert path_of(fd) == os.fsencode(tmp_path / name)
        (tmp_path / name).rmdir()
        assert path_of(fd) == os.fsencode(tmp_path / name)
        os.close(fd)


def test_plain_files_are_no_whiteouts(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert not is_whiteout((tmp_path / "a").stat())
    assert not is_whiteout(os.stat("/dev/null"))
