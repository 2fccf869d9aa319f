from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.model.stage import (
    UNFINISHED_PREFIX,
    CommitStaged,
    DiffStaged,
    ForgetStage,
    ListStaged,
    StagedListed,
    StageForgotten,
    StageRefused,
)
from coworkd.system.remove_tree import remove_tree
from coworkd.workers import stage_changes, stage_commit, stage_work
from coworkd.workers.stage_copy import copy_content
from coworkd.workers.stage_work import answer
from tests.unit.workers.staged_folder import PREFIX, StagedFolder, no_step


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    return StagedFolder(tmp_path)


def test_changes_tell_what_was_added_modified_deleted_and_renamed(folder: StagedFolder) -> None:
    folder.has(kept=b"k", edited=b"old", gone=b"g", moved=b"the very same", d__inner=b"i")
    folder.prepare()
    folder.write("fresh", b"new")
    folder.write("edited", b"newer")
    folder.delete("gone")
    folder.delete("moved")
    folder.write("d/moved", b"the very same")
    assert folder.listed() == [
        ("renamed", "d/moved"),
        ("modified", "edited"),
        ("added", "fresh"),
        ("deleted", "gone"),
    ]
    assert folder.changes()[0].before == b"moved"


def test_a_commit_brings_every_change_into_the_source(folder: StagedFolder) -> None:
    folder.has(edited=b"old", gone=b"g", d__inner=b"i")
    folder.prepare()
    folder.write("fresh/deep/file", b"new")
    folder.write("edited", b"newer")
    folder.delete("gone")
    folder.delete("d")
    assert set(folder.committed().values()) == {"committed"}
    assert folder.tree() == {"edited": b"newer", "fresh": None, "fresh/deep": None, "fresh/deep/file": b"new"}


def test_what_was_committed_is_no_change_any_more(folder: StagedFolder) -> None:
    folder.has(edited=b"old", gone=b"g")
    folder.prepare()
    folder.write("edited", b"newer")
    folder.delete("gone")
    folder.commit()
    assert folder.changes() == ()
    assert list(folder.upper.iterdir()) == []


def test_a_commit_of_one_path_takes_what_lies_below_it_and_no_more(folder: StagedFolder) -> None:
    folder.has(a=b"a")
    folder.prepare()
    folder.write("d/one", b"1")
    folder.write("d/two", b"2")
    folder.write("a", b"changed")
    assert folder.committed(b"d") == {"d": "committed", "d/one": "committed", "d/two": "committed"}
    assert folder.listed() == [("modified", "a")]


def test_a_commit_of_a_path_makes_the_directories_it_lies_in(folder: StagedFolder) -> None:
    folder.prepare()
    folder.write("x/y/one", b"1")
    folder.write("x/y/two", b"2")
    assert folder.committed(b"x/y/one") == {"x": "committed", "x/y": "committed", "x/y/one": "committed"}
    assert folder.listed() == [("added", "x/y/two")]


def test_a_commit_of_one_end_of_a_rename_takes_the_other(folder: StagedFolder) -> None:
    folder.has(old=b"the same content")
    folder.prepare()
    folder.delete("old")
    folder.write("new", b"the same content")
    assert folder.committed(b"new") == {"new": "committed", "old": "committed"}
    assert folder.tree() == {"new": b"the same content"}


def test_a_path_that_has_not_changed_is_skipped(folder: StagedFolder) -> None:
    folder.has(a=b"a")
    folder.prepare()
    assert folder.committed(b"a") == {"a": "skipped"}


def test_what_changed_in_the_source_is_a_conflict_and_stays_staged(folder: StagedFolder) -> None:
    folder.has(a=b"old", b=b"old")
    folder.prepare()
    folder.write("a", b"the session's")
    folder.write("b", b"the session's")
    (folder.source / "a").write_bytes(b"the user's")
    assert folder.committed() == {"a": "conflict", "b": "committed"}
    assert folder.tree() == {"a": b"the user's", "b": b"the session's"}
    assert [(change.kind, change.path, bool(change.conflict)) for change in folder.changes()] == [
        ("modified", b"a", True)
    ]


def test_overwrite_commits_in_spite_of_a_conflict(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.write("a", b"the session's")
    (folder.source / "a").write_bytes(b"the user's")
    assert folder.committed(overwrite=True) == {"a": "committed"}
    assert folder.tree() == {"a": b"the session's"}


def test_a_second_commit_of_the_same_file_is_no_conflict_with_the_first(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.write("b", b"something that stays")
    folder.write("a", b"first")
    folder.commit(b"a")
    folder.write("a", b"second")
    assert folder.committed(b"a") == {"a": "committed"}


def test_changes_come_in_pages(folder: StagedFolder) -> None:
    folder.prepare()
    for name in "abcde":
        folder.write(f"d/{name}", name.encode())
    request = ListStaged(id=1, place=folder.place, limit=3)
    first = folder.ask(request, StagedListed)
    assert ([change.path for change in first.changes], first.total, first.more) == ([b"d", b"d/a", b"d/b"], 6, True)
    rest = folder.ask(ListStaged(id=1, place=folder.place, after=b"d/b"), StagedListed)
    assert ([change.path for change in rest.changes], rest.more) == ([b"d/c", b"d/d", b"d/e"], False)


def test_a_page_holds_no_more_text_than_a_message(folder: StagedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_work, "TEXT_LIMIT_BYTES", 300)
    folder.prepare()
    for number in range(5):
        folder.write(f"{number}" * 200, b"x")
    listed = folder.ask(ListStaged(id=1, place=folder.place), StagedListed)
    assert (len(listed.changes), listed.total, listed.more) == (1, 5, True)


def test_results_tell_first_what_was_not_committed(folder: StagedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_work, "RESULT_LIMIT", 2)
    folder.has(z=b"old")
    folder.prepare()
    for name in ("a", "b", "c", "z"):
        folder.write(name, b"new")
    (folder.source / "z").write_bytes(b"the user's")
    done = folder.commit()
    assert [result.path for result in done.results] == [b"z", b"a"]
    assert (done.committed, done.conflicts, done.left_out) == (3, 1, 2)


def test_a_discard_drops_all(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.write("a", b"new")
    folder.write("d/b", b"new")
    assert folder.discard() == 3
    assert (folder.changes(), folder.tree()) == ((), {"a": b"old"})


def test_a_discard_of_a_path_leaves_the_others(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.write("a", b"new")
    folder.write("b", b"new")
    assert folder.discard(b"a") == 1
    assert folder.listed() == [("added", "b")]


def test_a_source_that_is_gone_is_refused_with_its_errno(folder: StagedFolder) -> None:
    folder.prepare()
    folder.source.rmdir()
    answered = answer(CommitStaged(id=7, place=folder.place, paths=None, overwrite=False), no_step, xattr_prefix=PREFIX)
    assert isinstance(answered, StageRefused)
    assert (answered.id, answered.errno) == (7, 2)


def test_a_source_that_has_become_a_link_is_refused(folder: StagedFolder, tmp_path: Path) -> None:
    folder.prepare()
    folder.write("a", b"x")
    folder.source.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.source.symlink_to(tmp_path / "elsewhere")
    answered = answer(CommitStaged(id=7, place=folder.place, paths=None, overwrite=True), no_step, xattr_prefix=PREFIX)
    assert isinstance(answered, StageRefused)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_no_session_has_seen_holds_nothing_back(folder: StagedFolder) -> None:
    assert folder.changes() == ()
    assert folder.committed(b"a") == {"a": "skipped"}
    assert folder.discard() == 0


def test_a_stage_whose_record_is_none_of_ours_is_refused(folder: StagedFolder) -> None:
    folder.prepare()
    (folder.stage / "about").write_bytes(b"{}")
    answered = answer(ListStaged(id=1, place=folder.place), no_step, xattr_prefix=PREFIX)
    assert isinstance(answered, StageRefused)
    assert "about" in answered.message


def test_a_diff_of_what_has_not_changed_is_missing(folder: StagedFolder) -> None:
    folder.prepare()
    answered = answer(DiffStaged(id=1, place=folder.place, path=b"a"), no_step, xattr_prefix=PREFIX)
    assert isinstance(answered, StageRefused)
    assert answered.missing


def test_a_source_that_has_become_empty_gets_nothing_unasked(folder: StagedFolder) -> None:
    """A share that is not mounted any more: what is below is not the user's folder."""
    folder.has(a=b"old", d__b=b"old")
    folder.prepare()
    folder.write("new", b"the session's")
    folder.delete("a")
    remove_tree(str(folder.source))
    folder.source.mkdir()
    assert [(each.path, each.state) for each in folder.commit().results] == [(b"new", "conflict")]
    assert stat.S_ISCHR((folder.upper / "a").lstat().st_mode), "what the session deleted is forgotten"
    assert (folder.tree(), folder.listed()) == ({}, [("added", "new")])
    assert folder.commit(overwrite=True).committed == 1


def test_a_source_that_a_commit_has_emptied_is_filled_again(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.delete("a")
    assert folder.commit().committed == 1
    folder.write("new", b"the session's")
    assert folder.commit().committed == 1


def test_what_is_chosen_is_committed_beside_more_than_can_be_looked_at(
    folder: StagedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session may lay directories within each other as deep as it likes."""
    folder.prepare()
    folder.write("ok/file", b"work")
    folder.enter("/".join(["deep"] * 60))
    monkeypatch.setattr(stage_changes, "PATHS_LIMIT_BYTES", 2000)
    assert "too much" in folder.ask(ListStaged(id=1, place=folder.place, limit=9), StageRefused).message
    assert folder.commit(b"ok").committed == 2
    assert folder.tree() == {"ok": None, "ok/file": b"work"}
    assert folder.discard() > 0
    assert list(folder.upper.iterdir()) == []


def test_what_an_interrupted_commit_left_is_no_conflict(folder: StagedFolder) -> None:
    folder.has(d__a=b"a")
    folder.prepare()
    (folder.replace("d") / "b").write_bytes(b"b")
    with folder.open() as stage:
        stage.write_intent([b"d"])
        left = UNFINISHED_PREFIX + stage.about.id.encode() + b"-1-1"
    (folder.source / "d" / os.fsdecode(left)).write_bytes(b"half")
    done = folder.commit()
    assert (done.conflicts, folder.tree()) == (0, {"d": None, "d/b": b"b"})


def test_forget_removes_the_stage_and_may_be_asked_again(folder: StagedFolder) -> None:
    folder.prepare()
    folder.write("a", bytes(8192))
    freed = folder.ask(ForgetStage(id=1, path=bytes(folder.stage)), StageForgotten).freed_bytes
    assert (freed >= 8192, os.path.exists(folder.stage)) == (True, False)
    assert folder.ask(ForgetStage(id=1, path=bytes(folder.stage)), StageForgotten).freed_bytes == 0


def test_what_is_written_while_it_is_committed_stays_staged(folder: StagedFolder) -> None:
    """By a command that kept the folder when it was taken away in use."""
    folder.has(a=b"old")
    folder.prepare()
    upper = folder.write("a", b"new")
    folder.write("b", b"new")
    seen: list[bytes] = []

    def write_on(path: bytes) -> None:
        seen.append(path)
        if path == b"a" and (folder.source / "a").read_bytes() == b"new":
            upper.write_bytes(b"newer still")

    folder.commit(step=write_on)
    assert folder.listed() == [("modified", "a")]
    assert upper.read_bytes() == b"newer still"
    folder.commit()
    assert folder.tree() == {"a": b"newer still", "b": b"new"}


def test_a_file_that_is_written_while_it_is_copied_is_not_committed(
    folder: StagedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.has(a=b"old")
    folder.prepare()
    upper = folder.write("a", b"half of what is to be written")

    def copy(source: int, target: int, size: int, step: Callable[[bytes], None]) -> None:
        copy_content(source, target, size, step)
        upper.write_bytes(b"all of it")

    monkeypatch.setattr(stage_commit, "copy_content", copy)
    done = folder.commit()
    assert (done.failed, folder.tree()) == (1, {"a": b"old"})
