from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.workers.stage_changes import Selection, TooManyChanges, find_changes
from tests.unit.workers.staged_folder import StagedFolder, no_step


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    made = StagedFolder(tmp_path)
    made.has(a=b"a", d__e__f=b"f", d__g=b"g", h=b"h")
    return made.prepare()


def found(folder: StagedFolder, *paths: bytes) -> list[tuple[str, str, str]]:
    """(path, what is there now, what was): `-` where there is nothing."""
    with folder.open() as stage:
        changes = find_changes(stage, Selection(paths or None), no_step)
    return [
        (os.fsdecode(c.path), c.entry if c.new else "-", (c.was or c.entry) if c.old else "-") for c in changes
    ]  # fmt: skip


def test_an_untouched_folder_has_no_changes(folder: StagedFolder) -> None:
    assert found(folder) == []


def test_what_was_copied_up_and_is_the_same_is_no_change(folder: StagedFolder) -> None:
    folder.write("a", b"a")
    folder.enter("d/e")
    assert found(folder) == []


def test_a_whiteout_of_nothing_is_no_change(folder: StagedFolder) -> None:
    folder.delete("never")
    assert found(folder) == []


def test_the_same_size_with_other_content_is_a_change_even_at_the_same_time(folder: StagedFolder) -> None:
    at = (folder.source / "a").stat().st_mtime_ns
    os.utime(folder.write("a", b"b"), ns=(at, at))
    assert found(folder) == [("a", "file", "file")]


def test_a_deleted_directory_is_told_once(folder: StagedFolder) -> None:
    folder.delete("d")
    assert found(folder) == [("d", "-", "directory")]


def test_an_opaque_directory_deletes_what_it_hides_at_any_depth(folder: StagedFolder) -> None:
    folder.replace("d")
    folder.write("d/e/new", b"n")
    assert found(folder) == [("d/e/f", "-", "file"), ("d/e/new", "file", "-"), ("d/g", "-", "file")]


def test_opacity_over_nothing_is_no_deletion(folder: StagedFolder) -> None:
    folder.replace("new")
    assert found(folder) == [("new", "directory", "-")]


def test_a_link_that_leads_elsewhere_is_a_change(folder: StagedFolder) -> None:
    (folder.source / "link").symlink_to("a")
    (folder.upper / "link").symlink_to("a")
    assert found(folder) == []
    (folder.upper / "link").unlink()
    (folder.upper / "link").symlink_to("h")
    assert found(folder) == [("link", "symlink", "symlink")]


@pytest.mark.parametrize(("new", "was"), [("file", "directory"), ("symlink", "directory")])
def test_another_kind_is_one_change(folder: StagedFolder, new: str, was: str) -> None:
    if new == "file":
        folder.write("d", b"x")
    else:
        (folder.upper / "d").symlink_to("a")
    assert found(folder) == [("d", new, was)]


def test_a_directory_where_a_file_was_is_told_with_what_it_holds(folder: StagedFolder) -> None:
    folder.write("a/in", b"x")
    assert found(folder) == [("a", "directory", "file"), ("a/in", "file", "-")]


def test_a_selection_takes_what_lies_below_and_the_way_there(folder: StagedFolder) -> None:
    folder.write("x/y/z", b"1")
    folder.write("x/other", b"2")
    folder.write("a", b"3")
    assert [path for path, _, _ in found(folder, b"x/y")] == ["x", "x/y", "x/y/z"]
    assert [path for path, _, _ in found(folder, b"x/other", b"a")] == ["a", "x", "x/other"]
    assert found(folder, b"x/none") == []
    assert len(found(folder, b"")) == 5


def test_a_name_that_only_begins_alike_is_not_selected(folder: StagedFolder) -> None:
    folder.write("x", b"1")
    folder.write("xy", b"2")
    assert [path for path, _, _ in found(folder, b"x")] == ["x"]


def test_more_changes_than_are_looked_at_are_told(folder: StagedFolder) -> None:
    for number in range(5):
        folder.write(str(number), b"x")
    with folder.open() as stage, pytest.raises(TooManyChanges, match="more than 4"):
        find_changes(stage, Selection(None), no_step, limit=4)
