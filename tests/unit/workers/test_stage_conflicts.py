from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.workers.stage_changes import Selection, find_changes
from coworkd.workers.stage_conflicts import CHANGED, DELETED, MADE, conflict_of
from tests.unit.workers.staged_folder import StagedFolder, no_step


@pytest.fixture(params=[True, False], ids=["baseline", "time alone"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> StagedFolder:
    """Prepared, with a baseline and without one."""
    made = StagedFolder(tmp_path)
    made.has(a=b"a", d__e__f=b"f", d__g=b"g")
    return made.prepare(baseline=request.param)


def conflicts(folder: StagedFolder) -> dict[str, str | None]:
    with folder.open() as stage:
        return {
            change.path.decode(): conflict_of(stage, change) for change in find_changes(stage, Selection(None), no_step)
        }


def test_nothing_stands_against_a_change_of_what_is_as_it_was(folder: StagedFolder) -> None:
    folder.write("a", b"changed")
    folder.write("new", b"new")
    folder.delete("d")
    assert conflicts(folder) == {"a": None, "d": None, "new": None}


def test_what_the_user_changed_is_in_conflict(folder: StagedFolder) -> None:
    folder.write("a", b"changed")
    folder.delete("d/g")
    (folder.source / "a").write_bytes(b"too")
    (folder.source / "d/g").write_bytes(b"too")
    assert conflicts(folder) == {"a": CHANGED, "d/g": CHANGED}


def test_what_the_user_made_in_a_directory_that_goes_is_named(folder: StagedFolder) -> None:
    folder.delete("d")
    (folder.source / "d/e/new").write_bytes(b"x")
    found = conflicts(folder)["d"]
    assert found is not None
    assert found.startswith("'e/new' in it: ")


def test_what_both_have_made_is_in_conflict(folder: StagedFolder) -> None:
    folder.write("new", b"the session's")
    (folder.source / "new").write_bytes(b"the user's")
    assert conflicts(folder)["new"] in (MADE, CHANGED)


def test_a_mode_of_a_directory_is_never_in_conflict(folder: StagedFolder) -> None:
    folder.enter("d").chmod(0o700)
    (folder.source / "d/more").write_bytes(b"x")
    assert conflicts(folder) == {"d": None}


def test_what_the_user_deleted_is_known_with_a_baseline_only(tmp_path: Path) -> None:
    folder = StagedFolder(tmp_path)
    folder.has(a=b"a")
    folder.prepare().write("a", b"changed")
    (folder.source / "a").unlink()
    assert conflicts(folder) == {"a": DELETED}
