from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.workers.stage_changes import Selection, find_changes
from coworkd.workers.stage_renames import HASH_BYTES, find_renames
from tests.unit.workers.staged_folder import StagedFolder, no_step


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    return StagedFolder(tmp_path)


def renames(folder: StagedFolder, limit_bytes: int = HASH_BYTES) -> dict[bytes, bytes]:
    with folder.open() as stage:
        return find_renames(stage, find_changes(stage, Selection(None), no_step), no_step, limit_bytes)


def test_a_pair_has_the_same_content(folder: StagedFolder) -> None:
    folder.has(a=b"one content", b=b"two content")
    folder.prepare()
    folder.delete("a")
    folder.delete("b")
    folder.write("x", b"two content")
    folder.write("y", b"new content")
    assert renames(folder) == {b"x": b"b"}


def test_each_end_is_in_one_pair_and_the_same_name_comes_first(folder: StagedFolder) -> None:
    folder.has(a=b"same", b=b"same")
    folder.prepare()
    folder.delete("a")
    folder.delete("b")
    folder.write("d/b", b"same")
    folder.write("d/x", b"same")
    folder.write("d/y", b"same")
    assert renames(folder) == {b"d/b": b"b", b"d/x": b"a"}


def test_empty_files_are_no_pair(folder: StagedFolder) -> None:
    folder.has(a=b"")
    folder.prepare()
    folder.delete("a")
    folder.write("b", b"")
    assert renames(folder) == {}


def test_no_more_is_read_than_allowed(folder: StagedFolder) -> None:
    folder.has(a=b"same", b=b"longer")
    folder.prepare()
    for old, new, data in (("a", "x", b"same"), ("b", "y", b"longer")):
        folder.delete(old)
        folder.write(new, data)
    assert renames(folder, 8) == {b"x": b"a"}
