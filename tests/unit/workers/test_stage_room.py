from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coworkd.workers.stage_room import INTENT_BYTES, has_intent, is_made, make_stage, wait_for_tick
from tests.unit.workers.staged_folder import StagedFolder


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    return StagedFolder(tmp_path)


def make(folder: StagedFolder) -> bool:
    return make_stage(folder.place, uid=os.getuid(), gid=os.getgid(), now=wait_for_tick)


def test_a_stage_is_roots_alone_and_its_top_is_like_the_sources(folder: StagedFolder) -> None:
    folder.source.chmod(0o2751)
    assert make(folder)
    assert stat.S_IMODE(folder.stage.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.upper.stat().st_mode) == 0o751
    assert sorted(os.listdir(folder.stage)) == ["about", "intent", "upper", "work"]
    assert is_made(folder.place.stage)


def test_making_it_again_changes_nothing_while_it_holds_changes(folder: StagedFolder) -> None:
    make(folder)
    folder.write("a", b"a")
    about = (folder.stage / "about").read_bytes()
    (folder.stage / "baseline").write_bytes(b"kept")
    assert not make(folder)
    assert ((folder.stage / "about").read_bytes(), (folder.stage / "baseline").read_bytes()) == (about, b"kept")


def test_an_empty_one_begins_anew(folder: StagedFolder) -> None:
    make(folder)
    about = (folder.stage / "about").read_bytes()
    for name in ("baseline", "baseline.17", "since"):
        (folder.stage / name).write_bytes(b"old")
    assert make(folder)
    assert (folder.stage / "about").read_bytes() != about
    assert sorted(os.listdir(folder.stage)) == ["about", "intent", "upper", "work"]


def test_what_was_half_made_is_made_whole(folder: StagedFolder) -> None:
    make(folder)
    folder.upper.rename(folder.stage / "upper.new")
    (folder.stage / "about").write_bytes(b"{")
    assert make(folder)
    with folder.open() as stage:
        assert len(stage.about.id) == 16


def test_an_intent_is_told_until_it_is_cleared(folder: StagedFolder) -> None:
    make(folder)
    with folder.open() as stage:
        assert stage.read_intent() == ()
        stage.write_intent([b"", b"a/b", b"\xff\n"])
        assert (stage.read_intent(), has_intent(folder.place.stage)) == ((b"", b"a/b", b"\xff\n"), True)
        stage.clear_intent()
        assert (stage.read_intent(), has_intent(folder.place.stage)) == ((), False)


def test_an_intent_of_very_many_directories_means_any(folder: StagedFolder) -> None:
    make(folder)
    with folder.open() as stage:
        stage.write_intent(b"%064d" % number for number in range(2000))
        assert stage.read_intent() is None
    assert (folder.stage / "intent").stat().st_size == INTENT_BYTES


def test_a_torn_intent_means_any(folder: StagedFolder) -> None:
    make(folder)
    with folder.open() as stage:
        stage.write_intent([b"a/b"])
        with (folder.stage / "intent").open("r+b") as file:
            file.seek(10)
            file.write(b"?")
        assert stage.read_intent() is None


def test_an_intent_takes_no_more_room_than_was_there(folder: StagedFolder) -> None:
    make(folder)
    before = (folder.stage / "intent").stat()
    with folder.open() as stage:
        stage.write_intent([b"x" * 4000] * 10)
    after = (folder.stage / "intent").stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)


def test_a_stage_without_a_record_of_ours_is_not_opened(folder: StagedFolder) -> None:
    make(folder)
    for about in (b'{"format": 2, "id": "x", "began_ns": 1}', b'{"format": 1, "id": "\xff", "began_ns": 1}'):
        (folder.stage / "about").write_bytes(about)
        with pytest.raises(ValueError, match="about"):
            folder.open()


def test_opacity_is_looked_up_set_and_taken_away(folder: StagedFolder) -> None:
    make(folder)
    folder.enter("d")
    with folder.open() as stage:
        found = [stage.is_opaque(b"d")]
        stage.make_opaque(b"d")
        found.append(stage.is_opaque(b"d"))
        stage.forget_opaque(b"d")
        assert [*found, stage.is_opaque(b"d"), stage.is_opaque(b"none")] == [False, True, False, False]


def test_a_tick_parts_what_was_changed_before_from_what_is_changed_after(tmp_path: Path) -> None:
    for _ in range(5):
        (tmp_path / "a").write_bytes(b"before")
        tick = wait_for_tick()
        (tmp_path / "b").write_bytes(b"after")
        assert (tmp_path / "a").stat().st_ctime_ns <= tick < (tmp_path / "b").stat().st_ctime_ns


@pytest.mark.parametrize("baseline", [True, False])
def test_changes_whose_beginning_is_lost_take_nothing_of_the_users(folder: StagedFolder, baseline: bool) -> None:
    folder.has(a=b"old", b=b"old")
    folder.prepare(baseline=baseline)
    folder.write("a", b"the session's")
    folder.write("b", b"the session's")
    (folder.source / "a").write_bytes(b"the user's own")
    (folder.stage / "about").write_bytes(b"{}")
    folder.prepare()
    done = folder.committed()
    assert done["a"] == "conflict"
    assert done["b"] == ("committed" if baseline else "conflict")
    assert folder.tree()["a"] == b"the user's own"
