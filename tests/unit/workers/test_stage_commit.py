from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.stage import UNFINISHED_PREFIX
from coworkd.system import beneath
from coworkd.system.remove_tree import remove_tree
from coworkd.workers import stage_commit
from coworkd.workers.stage_copy import copy_content
from coworkd.workers.stage_tree import Tree
from tests.unit.workers.staged_folder import StagedFolder, tree_of


class Killed(BaseException):
    """As if by SIGKILL: nothing catches it."""


@pytest.fixture
def folder(tmp_path: Path) -> StagedFolder:
    return StagedFolder(tmp_path)


def change_everything(folder: StagedFolder) -> None:
    """Every kind of change there is, a type change each way and an opaque directory among them."""
    folder.has(
        edited=b"old",
        gone=b"g",
        d__a=b"a",
        d__deep__b=b"b",
        t_file=b"a file",
        t_dir__x=b"x",
        o__hidden=b"h",
        o__kept=b"k",
    )
    folder.prepare()
    folder.write("edited", b"newer")
    folder.delete("gone")
    folder.delete("d")
    folder.write("fresh/deep/one", b"1")
    folder.write("fresh/two", b"2")
    (folder.upper / "fresh/link").symlink_to("two")
    folder.write("t_file/inner", b"now a directory")
    folder.write("t_dir", b"now a file")
    folder.replace("o")
    folder.write("o/kept", b"k2")


AFTER: dict[str, object] = {
    "edited": b"newer",
    "fresh": None,
    "fresh/deep": None,
    "fresh/deep/one": b"1",
    "fresh/two": b"2",
    "fresh/link": "two",
    "t_file": None,
    "t_file/inner": b"now a directory",
    "t_dir": b"now a file",
    "o": None,
    "o/kept": b"k2",
}
BEFORE: dict[str, object] = {
    "edited": b"old",
    "gone": b"g",
    "d": None,
    "d/a": b"a",
    "d/deep": None,
    "d/deep/b": b"b",
    "t_file": b"a file",
    "t_dir": None,
    "t_dir/x": b"x",
    "o": None,
    "o/hidden": b"h",
    "o/kept": b"k",
}


def kill_after(steps: int) -> Callable[[bytes], None]:
    left = steps

    def step(path: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    return step


def commit_killed_after(top: Path, steps: int) -> bool:
    """Whether it was killed; each path is old or new then, and the same commit again ends with all of them new."""
    folder = StagedFolder(top)
    change_everything(folder)
    try:
        folder.commit(step=kill_after(steps))
        killed = False
    except Killed:
        killed = True
    tree = {key: value for key, value in folder.tree().items() if not _is_unfinished(key)}
    for path, content in tree.items():
        assert content in (BEFORE.get(path, Ellipsis), AFTER.get(path, Ellipsis)), (steps, path)
    folder.prepare()
    assert not [key for key in folder.tree() if _is_unfinished(key)], steps
    done = folder.commit()
    assert (done.conflicts, done.failed) == (0, 0), (steps, done)
    assert (folder.tree(), folder.changes()) == (AFTER, ()), steps
    return killed


def _is_unfinished(key: str) -> bool:
    return any(part.startswith(UNFINISHED_PREFIX.decode()) for part in key.split("/"))


def test_a_kill_at_any_step_leaves_each_path_old_or_new_and_the_next_commit_ends_it(tmp_path: Path) -> None:
    steps = 0
    while commit_killed_after(tmp_path / str(steps), steps):
        steps += 1
    assert steps > 30


def test_set_id_and_sticky_bits_are_never_given(folder: StagedFolder) -> None:
    folder.prepare()
    folder.write("tool", b"#!", mode=0o6755)
    folder.enter("d").chmod(0o3777)
    folder.commit()
    assert stat.S_IMODE((folder.source / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder.source / "d").stat().st_mode) & 0o7000 == 0


def test_a_directory_of_a_groups_stays_one_and_hands_it_down(folder: StagedFolder) -> None:
    folder.has(team=None, box=None)
    (folder.source / "team").chmod(0o2775)
    (folder.source / "box").chmod(0o1777)
    folder.prepare()
    folder.write("team/new/file", b"x")
    (folder.upper / "team").chmod(0o750)
    folder.enter("box").chmod(0o755)
    assert folder.commit().failed == 0
    modes = {
        name: stat.S_IMODE((folder.source / name).stat().st_mode)
        for name in ("team", "team/new", "box", "team/new/file")
    }
    assert modes == {"team": 0o2750, "team/new": 0o2755, "box": 0o1755, "team/new/file": 0o644}


def test_a_mode_alone_is_committed(folder: StagedFolder) -> None:
    folder.has(run=b"#!")
    (folder.source / "run").chmod(0o644)
    folder.prepare()
    folder.write("run", b"#!", mode=0o755)
    inode = (folder.source / "run").stat().st_ino
    assert folder.committed() == {"run": "committed"}
    after = (folder.source / "run").stat()
    assert (after.st_ino, stat.S_IMODE(after.st_mode)) == (inode, 0o755)


def test_the_mode_of_a_file_is_not_that_of_its_other_names(folder: StagedFolder) -> None:
    folder.has(a=b"x")
    (folder.source / "a").chmod(0o644)
    os.link(folder.source / "a", folder.source / "other")
    folder.prepare()
    folder.write("a", b"x", 0o755)
    assert folder.commit().committed == 1
    modes = [stat.S_IMODE((folder.source / name).stat().st_mode) for name in ("a", "other")]
    assert modes == [0o755, 0o644]


def test_the_time_of_a_file_comes_along(folder: StagedFolder) -> None:
    folder.prepare()
    os.utime(folder.write("a", b"a"), ns=(5, 1_000_000_000))
    folder.commit()
    assert (folder.source / "a").stat().st_mtime_ns == 1_000_000_000


def test_a_sparse_file_stays_sparse(folder: StagedFolder) -> None:
    folder.prepare()
    with folder.write("huge", b"begin").open("r+b") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"middle")
    assert folder.committed() == {"huge": "committed"}
    found = (folder.source / "huge").stat()
    assert (found.st_size, found.st_blocks * 512 < 1 << 20) == (1 << 40, True)
    assert folder.changes() == ()


def test_a_link_that_leads_out_is_committed_as_a_link(folder: StagedFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"not theirs")
    folder.prepare()
    (folder.upper / "link").symlink_to(outside)
    assert folder.committed() == {"link": "committed"}
    assert os.readlink(folder.source / "link") == str(outside)
    assert outside.read_bytes() == b"not theirs"


def test_a_fifo_stays_behind(folder: StagedFolder) -> None:
    folder.prepare()
    os.mkfifo(folder.upper / "pipe")
    folder.write("a", b"a")
    assert folder.committed() == {"pipe": "failed", "a": "committed"}
    assert folder.listed() == [("added", "pipe")]


def test_hard_links_become_copies(folder: StagedFolder) -> None:
    folder.prepare()
    os.link(folder.write("a", b"same"), folder.upper / "b")
    folder.commit()
    assert (folder.source / "a").stat().st_ino != (folder.source / "b").stat().st_ino


def test_an_empty_file_is_committed(folder: StagedFolder) -> None:
    folder.prepare()
    folder.write("empty", b"")
    assert folder.committed() == {"empty": "committed"}
    assert folder.tree() == {"empty": b""}


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", b"x" * 255, b" ", b"*", b"-rf"])
def test_a_name_may_be_anything(folder: StagedFolder, name: bytes) -> None:
    folder.prepare()
    (folder.upper / os.fsdecode(name)).write_bytes(b"x")
    assert folder.committed() == {os.fsdecode(name): "committed"}
    assert os.listdir(os.fsencode(folder.source)) == [name]


def test_a_tree_of_a_thousand_directories_is_committed_and_deleted(folder: StagedFolder) -> None:
    folder.prepare()
    fd = os.open(folder.upper, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert folder.commit().committed == 1000
    assert len(folder.changes()) == 0
    folder.delete("deep")
    assert folder.changes()[0].entries == 999
    assert folder.committed() == {"deep": "committed"}
    assert folder.tree() == {}
    remove_tree(str(folder.stage))  # what was settled waits there for another worker; pytest cannot remove it


def test_a_file_that_cannot_be_written_fails_alone(folder: StagedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.prepare()
    for name in ("a", "b", "c"):
        folder.write(name, name.encode())

    def full(source: int, target: int, size: int, step: Callable[[bytes], None]) -> None:
        if os.pread(source, 1, 0) == b"b":
            raise OSError(errno.ENOSPC, "No space left on device")
        copy_content(source, target, size, step)

    monkeypatch.setattr("coworkd.workers.stage_commit.copy_content", full)
    done = folder.commit()
    assert [(each.path, each.state, each.reason) for each in done.results if each.state != "committed"] == [
        (b"b", "failed", "No space left on device")
    ]
    assert folder.tree() == {"a": b"a", "c": b"c"}
    assert folder.listed() == [("added", "b")]


def test_what_lies_in_a_directory_that_cannot_be_made_is_skipped(
    folder: StagedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.prepare()
    folder.write("d/a", b"a")
    folder.write("b", b"b")

    def refuse(source: int, target: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("coworkd.workers.stage_commit.copy_user_attributes", refuse)
    assert folder.committed() == {"d": "failed", "d/a": "skipped", "b": "committed"}
    assert folder.tree() == {"b": b"b"}


def test_a_source_directory_swapped_for_a_link_leads_nowhere(folder: StagedFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.has(d__a=b"a")
    folder.prepare()
    folder.write("d/b", b"b")
    folder.write("d/a", b"changed")

    def swap(path: bytes) -> None:
        if path == b"d/b" and not (folder.source / "d").is_symlink():
            (folder.source / "d").rename(folder.source / "e")
            (folder.source / "d").symlink_to(outside)

    folder.commit(overwrite=True, step=swap)
    assert list(outside.iterdir()) == []


def test_a_change_between_the_judging_and_the_rename_is_a_conflict(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.write("a", b"the session's")
    folder.write("b", b"the session's")
    seen: list[bytes] = []

    def change(path: bytes) -> None:
        seen.append(path)
        if seen.count(b"b") == 3:  # walked, judged, and about to be written
            (folder.source / "a").write_bytes(b"the user's own")
            (folder.source / "b").write_bytes(b"the user's own")

    folder.commit(step=change)
    assert folder.tree() == {"a": b"the user's own", "b": b"the user's own"}
    assert not [key for key in folder.tree() if _is_unfinished(key)]


def test_what_is_put_into_a_directory_as_a_file_takes_its_place_is_not_lost(folder: StagedFolder) -> None:
    folder.has(d__a=b"a")
    folder.prepare()
    folder.write("d", b"a file")
    inside = folder.source / "d"
    put: list[bool] = []

    def put_in(path: bytes) -> None:
        if path == b"d" and inside.is_dir() and len(put) == 2:
            (inside / "late").write_bytes(b"the user's")
        put.append(True)

    folder.commit(step=put_in)
    kept = [value for value in tree_of(folder.source).values() if value == b"the user's"]
    assert kept == [b"the user's"]


def test_a_directory_that_got_something_of_the_users_is_not_deleted(folder: StagedFolder) -> None:
    folder.has(d__a=b"a")
    folder.prepare()
    folder.delete("d")
    (folder.source / "d" / "new").write_bytes(b"the user's")
    done = folder.commit()
    assert [(each.path, each.state) for each in done.results] == [(b"d", "conflict")]
    assert "new" in done.results[0].reason
    assert folder.tree() == {"d": None, "d/a": b"a", "d/new": b"the user's"}


def test_both_having_made_the_same_directory_is_no_conflict(folder: StagedFolder) -> None:
    folder.prepare()
    folder.write("d/mine", b"1")
    folder.has(d__yours=b"2")
    assert folder.commit().conflicts == 0
    assert folder.tree() == {"d": None, "d/mine": b"1", "d/yours": b"2"}


def test_what_the_user_deleted_is_not_brought_back_unasked(folder: StagedFolder) -> None:
    folder.has(a=b"old")
    folder.prepare()
    folder.write("a", b"the session's")
    (folder.source / "a").unlink()
    assert folder.committed() == {"a": "conflict"}
    assert folder.committed(overwrite=True) == {"a": "committed"}


def test_many_files_go_in_batches(folder: StagedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_commit, "BATCH_FILES", 7)
    folder.prepare()
    for number in range(40):
        folder.write(f"d{number % 3}/{number}", b"%d" % number)
    assert folder.commit().committed == 43
    assert len(folder.tree()) == 43


@pytest.mark.needs("user-attributes")
def test_user_attributes_come_along(folder: StagedFolder) -> None:
    folder.prepare()
    path = folder.write("a", b"a")
    os.setxattr(path, "user.note", b"hello")
    folder.commit()
    assert os.getxattr(folder.source / "a", "user.note") == b"hello"


def test_a_file_that_is_written_to_while_it_waits_to_be_deleted_stays(folder: StagedFolder) -> None:
    folder.has(a=b"old", d__b=b"old", d__c=b"old")
    folder.prepare()
    folder.delete("a")
    folder.delete("d")
    seen: list[bytes] = []

    def edit(path: bytes) -> None:
        seen.append(path)
        for name in ("a", "d/b"):
            if path == name.encode() and seen.count(path) == (3 if name == "a" else 1):
                (folder.source / name).write_bytes(b"the user's own")

    done = folder.commit(step=edit)
    assert (done.conflicts, done.committed) == (2, 0)
    assert {folder.tree()[name] for name in ("a", "d/b")} == {b"the user's own"}


@pytest.mark.parametrize("entry", ["file", "symlink", "directory"])
def test_a_change_right_before_the_rename_is_brought_back(
    folder: StagedFolder, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    folder.has(a=b"old")
    folder.prepare()
    if entry == "file":
        folder.write("a", b"the session's")
    elif entry == "symlink":
        (folder.upper / "a").symlink_to("elsewhere")
    else:
        folder.enter("a")
    true = beneath.renameat2
    late: list[bool] = []

    def edit_first(*arguments: Any) -> None:
        if not late:
            late.append(True)
            (folder.source / "a").write_bytes(b"the user's own")
        true(*arguments)

    monkeypatch.setattr(stage_commit, "renameat2", edit_first)
    done = folder.commit()
    assert (done.conflicts, folder.tree()) == (1, {"a": b"the user's own"})
    assert [change.path for change in folder.changes()] == [b"a"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EIO])
def test_a_directory_that_cannot_be_seen_whole_makes_room_for_no_file(
    folder: StagedFolder, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder.has(d__a=b"a", d__mounted__b=b"b")
    folder.prepare()
    folder.write("d", b"a file")
    true = Tree.names

    def refuse(tree: Tree, path: bytes) -> list[bytes]:
        if path.endswith(b"/mounted"):
            raise OSError(code, os.strerror(code))
        return true(tree, path)

    monkeypatch.setattr(Tree, "names", refuse)
    done = folder.commit(overwrite=True)
    assert (done.failed, done.committed) == (1, 0)
    assert folder.tree() == {"d": None, "d/a": b"a", "d/mounted": None, "d/mounted/b": b"b"}


def test_without_the_flag_what_is_there_is_still_not_renamed_over(
    folder: StagedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.prepare()
    folder.write("a", b"the session's")

    def no_flags(*arguments: Any) -> None:
        (folder.source / "a").write_bytes(b"the user's own")
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(stage_commit, "renameat2", no_flags)
    assert (folder.commit().conflicts, folder.tree()) == (1, {"a": b"the user's own"})


def test_paths_longer_than_a_record_are_committed_as_well(folder: StagedFolder) -> None:
    make_very_deep(folder.source)
    folder.has(d__short=b"s")
    folder.prepare()
    folder.write("d/short", b"s2")
    make_very_deep(folder.upper / "d")
    done = folder.commit()
    assert (done.failed, done.conflicts, done.committed) == (0, 0, 301)
    assert (folder.source / "d" / "short").read_bytes() == b"s2"
    remove_tree(str(folder.source))


def make_very_deep(top: Path) -> None:
    """Three hundred directories within each other, the innermost with a path of 75,000 bytes."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("x" * 250, 0o755, dir_fd=fd)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
