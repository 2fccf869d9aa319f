from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from coworkd.workers.stage_changes import Selection, find_changes
from coworkd.workers.stage_diff import DIFF_BYTES, NoDiff, make_diff
from tests.unit.workers.staged_folder import StagedFolder, no_step


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    made = StagedFolder(tmp_path)
    made.has(a=b"one\ntwo\nthree\n", bin=b"\x00\x01", gone=b"was\nhere\n", latin=b"caf\xe9\n")
    return made.prepare()


def test_lines_that_differ_stand_among_their_neighbours(folder: StagedFolder) -> None:
    folder.write("a", b"one\n2\nthree\n")
    assert folder.diff(b"a").diff == b"--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"


def test_what_is_new_and_what_is_gone_is_told_whole(folder: StagedFolder) -> None:
    folder.write("new", b"x\n")
    folder.delete("gone")
    assert folder.diff(b"new").diff == b"--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n"
    assert folder.diff(b"gone").diff == b"--- a/gone\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-was\n-here\n"


def test_a_last_line_without_its_end_is_marked(folder: StagedFolder) -> None:
    folder.write("a", b"one\ntwo\nthree")
    diff = folder.diff(b"a").diff
    assert diff is not None
    assert diff.endswith(b"-three\n+three\n\\ No newline at end of file\n")


def test_only_a_line_feed_ends_a_line(folder: StagedFolder) -> None:
    folder.write("a", "one\ntwo\u2028\r\nthree\n".encode())
    diff = folder.diff(b"a").diff
    assert diff is not None
    assert diff.count(b"\n+") == 2  # the head's, and one line


def test_a_mode_alone_has_an_empty_diff(folder: StagedFolder) -> None:
    folder.write("a", b"one\ntwo\nthree\n", mode=0o755)
    assert folder.diff(b"a").diff == b""


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [("bin", b"\x00\x02", "not text"), ("latin", b"x", "not text"), ("big", b"x" * (DIFF_BYTES + 1), "larger")],
)
def test_what_is_no_text_or_too_large_has_none(folder: StagedFolder, name: str, data: bytes, why: str) -> None:
    folder.write(name, data)
    answered = folder.diff(name.encode())
    assert answered.diff is None
    assert why in answered.why


def test_a_directory_has_none(folder: StagedFolder) -> None:
    folder.enter("d")
    assert "plain file" in folder.diff(b"d").why


def test_comparing_ends_at_its_deadline(folder: StagedFolder) -> None:
    folder.write("a", b"quite\nother\n")
    clock = itertools.count(0, 10)
    with folder.open() as stage:
        (change,) = find_changes(stage, Selection(None), no_step)
        with pytest.raises(NoDiff, match="too different"):
            make_diff(stage, change, now=lambda: float(next(clock)))
