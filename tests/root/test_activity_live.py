"""What sessions change in their folders, told by the kernel (fanotify), or by a guarded folder's own file system."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.sync import Client
from coworkd.model.policy import FolderMode
from coworkd.model.watch import SeenChange
from coworkd.system.process_parents import read_ancestry
from coworkd.workers.watch_fanotify import FanotifyTrees
from coworkd.workers.watch_trees import Tree
from tests.root.approval_lab import Listener, session_with, tree
from tests.root.conftest import Daemon
from tests.root.live import client_of, wait_until

pytestmark = [
    pytest.mark.needs("bubblewrap"),
    pytest.mark.needs("fuse"),
    pytest.mark.needs("fanotify"),
    pytest.mark.needs("overlay"),
]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture
def listener(daemon: Daemon) -> Iterator[Listener]:
    made = Listener(daemon)
    yield made
    made.close()


@pytest.fixture
def trees() -> Iterator[FanotifyTrees]:
    made = FanotifyTrees()
    yield made
    made.close()


def _told(listener: Listener, folder: str, session: str) -> list[tuple[Any, Any, Any]]:
    events = listener.of("activity", folder=folder, session=session)
    return [(each["change"], each["path"], each.get("to")) for each in events]


def _is_told(listener: Listener, folder: str, session: str, wanted: set[tuple[Any, Any, Any]]) -> bool:
    return wanted <= set(_told(listener, folder, session))


# -- the worker's eyes ------------------------------------------------------------------------------------------------


def _read(trees: FanotifyTrees) -> list[tuple[int, str, bytes, bytes]]:
    return [(each.watch, each.change.change, each.change.path, each.change.to) for each in _seen(trees)]


def _seen(trees: FanotifyTrees) -> list[SeenChange]:
    """All that is there: what others of this machine do on the same file system takes room in each read."""
    found: list[SeenChange] = []
    while select.select([trees.fd], [], [], 0)[0]:
        seen, missed = trees.read()
        assert not missed
        found += seen
    return found


def test_changes_below_a_tree_are_seen_with_who_made_them(trees: FanotifyTrees, tmp_path: Path) -> None:
    top = tree(tmp_path / "top", "d/file")
    trees.add(Tree(1, os.fsencode(top), staged=False))
    (top / "d" / "new\n").write_text("abc")
    (top / "d").rename(top / "e")
    (top / "e" / "file").unlink()
    (top / "m").mkdir()
    (tmp_path / "outside").write_text("x")
    seen = _seen(trees)
    assert [(each.change.change, each.change.path, each.change.to, each.change.size) for each in seen] == [
        ("create", b"e/new\n", b"", -1),
        ("write", b"e/new\n", b"", 3),
        ("rename", b"d", b"e", -1),
        ("delete", b"e/file", b"", -1),
        ("mkdir", b"m", b"", -1),
    ]
    assert {each.ancestry for each in seen} == {read_ancestry(os.getpid())}


def test_what_is_moved_out_of_a_tree_is_gone_and_what_comes_in_is_made(trees: FanotifyTrees, tmp_path: Path) -> None:
    top = tree(tmp_path / "top", "a", "d/x")
    trees.add(Tree(1, os.fsencode(top), staged=False))
    (top / "a").rename(tmp_path / "a")
    (top / "d").rename(tmp_path / "d")
    (tmp_path / "a").rename(top / "b")
    assert _read(trees) == [(1, "delete", b"a", b""), (1, "rmdir", b"d", b""), (1, "create", b"b", b"")]


def test_two_trees_see_the_same_change_by_their_own_paths(trees: FanotifyTrees, tmp_path: Path) -> None:
    top = tree(tmp_path / "top", "d/x")
    trees.add(Tree(1, os.fsencode(top), staged=False))
    trees.add(Tree(2, os.fsencode(top / "d"), staged=False))
    (top / "d" / "x").unlink()
    assert sorted(_read(trees)) == [(1, "delete", b"d/x", b""), (2, "delete", b"x", b"")]
    assert trees.remove(1)
    (top / "d" / "y").mkdir()
    assert _read(trees) == [(2, "mkdir", b"y", b"")]
    assert trees.remove(2)
    (top / "d" / "z").mkdir()
    assert _read(trees) == []


def test_a_file_is_watched_by_itself(trees: FanotifyTrees, tmp_path: Path) -> None:
    top = tree(tmp_path / "top", "one", "other")
    trees.add(Tree(1, os.fsencode(top / "one"), staged=False))
    (top / "one").write_text("longer")
    (top / "other").write_text("x")
    assert _read(trees) == [(1, "write", b"", b"")]


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_folder_tells_what_a_command_changes(client: Client, listener: Listener, tmp_path: Path) -> None:
    sources = [tree(tmp_path / name, "old", "d/x") for name in ("guarded", "plain", "staged")]
    modes: tuple[FolderMode, ...] = ("rw", "rwd", "staged")
    script = "for f in f g h; do cd ~/mnt/$f; echo x > new; mkdir m; mv new m/moved; done; cd ~/mnt/g; rm old; cd ../h; rm old; sleep 0.2"
    with session_with(client, "kinds", *zip(sources, modes, strict=True), profile="default") as session:
        with client.start(session, ["sh", "-c", script]) as process:
            process.wait(timeout_s=60)
        made = {("mkdir", "m", None), ("rename", "new", "m/moved")}
        deleted = made | {("delete", "old", None)}
        for folder, wanted in (("f", made), ("g", deleted), ("h", deleted)):
            listener.wait(partial(_is_told, listener, folder, session, wanted), f"{folder} is told")
        # Nothing but that command ran: whatever is told is told of it.
        assert {each["process"] for each in listener.of("activity", session=session)} == {process.id}

        def is_recorded() -> bool:
            records = client.audit_tail(session=session, limit=200).records
            changes = {(each["name"], each["change"]) for each in records if each["kind"] == "folder.change"}
            return changes >= {("f", "mkdir"), ("g", "delete"), ("h", "rename")}

        wait_until(is_recorded, "it is in the audit log")


def test_what_the_host_does_in_its_own_directory_is_not_told(
    client: Client, listener: Listener, tmp_path: Path
) -> None:
    source = tree(tmp_path / "source", "a")
    with session_with(client, "host", (source, "rwd"), profile="default") as session:
        with client.start(session, ["sh", "-c", "read x; mkdir mnt/f/theirs; sleep 0.2"], stdin=True) as process:
            for number in range(20):
                (source / f"mine{number}").write_text("x")
            client.process_write_stdin(process=process.id, offset=0, data=b"\n")
            process.wait(timeout_s=60)
        listener.wait(lambda: _told(listener, "f", session), "the session's own is told")
        assert _told(listener, "f", session) == [("mkdir", "theirs", None)]


def test_ten_thousand_files_are_few_records_and_all_are_counted(
    client: Client, listener: Listener, tmp_path: Path
) -> None:
    source = tree(tmp_path / "source")
    script = """
import os
for directory in range(200):
    os.mkdir(f"n{directory}")
    for number in range(50):
        os.close(os.open(f"n{directory}/{number}", os.O_CREAT | os.O_WRONLY))
"""
    with session_with(client, "install", (source, "rwd"), profile="default") as session:
        ran = client.run(session, ["python3", "-c", script], cwd=f"/sessions/{session}/mnt/f")
        assert ran.exit.code == 0

        def count() -> int:
            events = listener.of("activity", session=session)
            return sum(each.get("count", 1) for each in events if each["change"] != "lost")

        def is_all() -> bool:
            return count() >= 10_200 or bool(listener.of("activity", session=session, change="lost"))

        listener.wait(is_all, "all are counted, or said to be lost")
        assert len(listener.of("activity", session=session)) < 1000


@pytest.mark.parametrize("mode", ["rwd", "rw", "staged"])
def test_what_commands_did_that_are_over_at_once_is_told_as_theirs(
    client: Client, listener: Listener, tmp_path: Path, mode: FolderMode
) -> None:
    source = tree(tmp_path / "source")
    with session_with(client, f"brief-{mode}", (source, mode), profile="default") as session:
        for number in range(20):
            assert client.run(session, ["touch", f"mnt/f/{number}"]).exit.code == 0
        wanted = {("create", str(number), None) for number in range(20)}
        listener.wait(partial(_is_told, listener, "f", session, wanted), "each is told")
        of = {str(each["argv"][-1]): each["process"] for each in listener.of("process.start", session=session)}
        told = listener.of("activity", session=session, change="create")
        assert {f"mnt/f/{each['path']}": each["process"] for each in told} == of


def test_names_of_any_bytes_are_told(client: Client, listener: Listener, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    name = b"x\n\x1b[2J\xff"
    with session_with(client, "names", (source, "rwd"), profile="default") as session:
        with client.start(session, [b"mkdir", b"mnt/f/" + name]) as process:
            process.wait(timeout_s=60)
        listener.wait(lambda: ("mkdir", name, None) in _told(listener, "f", session), "its name")
