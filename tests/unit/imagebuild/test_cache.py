from __future__ import annotations

from pathlib import Path

import pytest

from imagebuild.cache import Cache, hash_of, hash_of_files


def test_an_entry_is_made_once_for_its_key(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text(str(len(made)))

    assert cache.entry("a", {"x": 1}, make, suffix=".tar").read_text() == "1"
    assert cache.entry("a", {"x": 1}, make, suffix=".tar").read_text() == "1"
    assert cache.entry("a", {"x": 2}, make, suffix=".tar").read_text() == "2"
    assert cache.entry("a", {"x": 1}, make, suffix=".tar", fresh=True).read_text() == "3"


def test_an_entry_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        Cache(tmp_path).entry("a", 1, make, suffix=".tar")
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_files_is_of_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    assert hash_of_files([one]) != hash_of_files([two])
    assert hash_of({"b": 1, "a": 2}) == hash_of({"a": 2, "b": 1})
