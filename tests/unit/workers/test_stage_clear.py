from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.stage import DiscardStaged, Prepared, PrepareStage, StageDiscarded, StageForgotten, TidyStage
from tests.unit.workers.staged_folder import StagedFolder
from tests.unit.workers.test_stage_commit import Killed, kill_after


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    return StagedFolder(tmp_path)


def seen(folder: StagedFolder) -> dict[str, str]:
    """What an overlay would show: path → `source` or `session`, from the changes alone."""
    view = dict.fromkeys(folder.tree(), "source")
    for change in folder.changes():
        path = os.fsdecode(change.path)
        if change.kind == "deleted":
            view = {each: whose for each, whose in view.items() if each != path and not each.startswith(path + "/")}
        else:
            view[path] = "session"
    return view


def replaced(folder: StagedFolder) -> StagedFolder:
    folder.has(o__a=b"a", o__b=b"b", o__d__x=b"x", o__d__y=b"y", other=b"o")
    folder.prepare()
    folder.replace("o")
    folder.write("o/a", b"the session's")
    folder.write("o/d/new", b"n")
    return folder


def test_an_opaque_directory_stays_while_anything_below_it_is_unsettled(folder: StagedFolder) -> None:
    replaced(folder)
    (folder.source / "o/b").write_bytes(b"the user's")
    assert folder.committed()["o/b"] == "conflict"
    assert seen(folder) == {"o": "source", "o/a": "source", "o/d": "source", "o/d/new": "source", "other": "source"}
    assert (folder.upper / "o/a").exists()


def test_giving_up_a_path_below_an_opaque_directory_brings_back_that_alone(folder: StagedFolder) -> None:
    replaced(folder)
    assert folder.discard(b"o/d/x") == 1
    assert seen(folder) == {
        "o": "source",
        "o/a": "session",
        "o/d": "source",
        "o/d/new": "session",
        "o/d/x": "source",
        "other": "source",
    }


def test_giving_up_what_replaced_a_file_brings_that_back(folder: StagedFolder) -> None:
    replaced(folder)
    assert folder.discard(b"o/a") == 1
    assert seen(folder)["o/a"] == "source"


@pytest.mark.parametrize("paths", [(), (b"o/d/x",), (b"o",)])
def test_a_kill_at_any_step_of_a_discard_deletes_nothing_of_the_source(
    tmp_path: Path, paths: tuple[bytes, ...]
) -> None:
    steps = 0
    while True:
        folder = replaced(StagedFolder(tmp_path / str(steps)))
        request = DiscardStaged(id=1, place=folder.place, paths=paths or None)
        before = folder.tree()
        gone_before = {path for kind, path in folder.listed() if kind == "deleted"}
        try:
            folder.ask(request, StageDiscarded, kill_after(steps))
            break
        except Killed:
            steps += 1
        assert {path for kind, path in folder.listed() if kind == "deleted"} <= gone_before
        folder.ask(request, StageDiscarded)
        assert folder.tree() == before
        if not paths:
            assert folder.changes() == ()
    assert steps > 3


def test_a_discard_of_all_keeps_the_top_as_it_was(folder: StagedFolder) -> None:
    folder.prepare()
    folder.upper.chmod(0o711)
    folder.write("a", b"a")
    folder.discard()
    assert (folder.upper.stat().st_mode & 0o777, os.listdir(folder.upper)) == (0o711, [])


def trash_of(folder: StagedFolder) -> list[str]:
    return [name for name in os.listdir(folder.stage) if name.startswith(("trash.", "filling."))]


def test_what_was_put_aside_is_removed_when_it_is_asked_for(folder: StagedFolder) -> None:
    folder.prepare()
    folder.write("d/a", b"a")
    folder.discard(b"d")
    assert len(trash_of(folder)) == 1
    folder.ask(TidyStage(id=1, path=folder.place.stage), StageForgotten)
    assert trash_of(folder) == []
    folder.ask(TidyStage(id=1, path=b"/nothing/at/all"), StageForgotten)


def test_what_an_interrupted_discard_put_aside_is_found_at_the_next_mount(folder: StagedFolder) -> None:
    folder.prepare()
    (folder.stage / "filling.x" / "1").mkdir(parents=True)
    request = PrepareStage(id=1, place=folder.place, uid=os.getuid(), gid=os.getgid())
    assert folder.ask(request, Prepared).needs_tidying
    assert trash_of(folder) == ["trash.x"]
    folder.ask(TidyStage(id=1, path=folder.place.stage), StageForgotten)
    assert not folder.ask(request, Prepared).needs_tidying
