"""Staged folders for real: an overlay in a session's view, what commands change in it, and what of that reaches the host's directory."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import InvalidState
from coworkd.model.names import OsBytes
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of

pytestmark = [pytest.mark.needs("bubblewrap"), pytest.mark.needs("overlay")]
NOBODY = 65534


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A host directory that belongs to somebody else, with some files."""
    place = tmp_path / "shared"
    (place / "docs" / "old").mkdir(parents=True)
    (place / "kept").write_text("kept\n")
    (place / "edited").write_text("one\ntwo\nthree\n")
    (place / "gone").write_text("gone\n")
    (place / "docs" / "old" / "letter").write_text("a letter\n")
    (place / "docs" / "moved").write_text("the content of what is moved\n")
    for directory, inner, files in os.walk(place):
        for name in [*inner, *files]:
            os.chown(os.path.join(directory, name), NOBODY, NOBODY)
    os.chown(place, NOBODY, NOBODY)
    return place


@pytest.fixture
def staged(client: Client, shared: Path) -> Iterator[str]:
    with session_of(client, "staged", folders=[FolderGrant(name="f", source=str(shared), mode="staged")]) as name:
        yield name


def sh(client: Client, session: str, script: str) -> str:
    ran = client.run(session=session, argv=["sh", "-ec", f"cd ~/mnt/f; {script}"])
    assert ran.exit.code == 0, ran
    return ran.stdout.decode()


def listed(client: Client, session: str) -> list[tuple[str, str]]:
    answer = client.folder_changes(session=session, name="f")
    return [(change.kind, os.fsdecode(change.path)) for change in answer.changes]


def test_what_commands_change_is_held_back(client: Client, staged: str, shared: Path) -> None:
    sh(client, staged, "echo four >> edited; rm gone; echo new > fresh; rm -r docs/old; mv docs/moved docs/there")
    assert listed(client, staged) == [
        ("deleted", "docs/old"),
        ("renamed", "docs/there"),
        ("modified", "edited"),
        ("added", "fresh"),
        ("deleted", "gone"),
    ]
    assert sorted(os.listdir(shared)) == ["docs", "edited", "gone", "kept"]
    assert (shared / "edited").read_text() == "one\ntwo\nthree\n"
    diff = client.folder_changes(session=staged, name="f", diff=OsBytes(b"edited")).diff
    assert diff == b"--- a/edited\n+++ b/edited\n@@ -1,3 +1,4 @@\n one\n two\n three\n+four\n"


def test_a_commit_brings_it_to_the_host_as_the_hosts_own(client: Client, staged: str, shared: Path) -> None:
    sh(
        client,
        staged,
        "echo four >> edited; rm gone; mkdir d; echo new > d/fresh; chmod 755 d/fresh; ln -s /etc/passwd link",
    )
    done = client.folder_commit(session=staged, name="f")
    assert (done.committed, done.conflicts, done.failed) == (5, 0, 0), done
    assert (shared / "edited").read_text() == "one\ntwo\nthree\nfour\n"
    assert not (shared / "gone").exists()
    assert os.readlink(shared / "link") == "/etc/passwd"
    made = (shared / "d" / "fresh").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (NOBODY, NOBODY, 0o755)
    assert (shared / "edited").stat().st_uid == NOBODY
    assert (shared / "link").lstat().st_uid == NOBODY
    assert client.folder_changes(session=staged, name="f").total == 0


def test_after_a_commit_the_session_sees_the_same_and_goes_on(client: Client, staged: str, shared: Path) -> None:
    sh(client, staged, "echo 1 > a; rm -r docs")
    client.folder_commit(session=staged, name="f")
    assert sh(client, staged, "ls; cat a") == "a\nedited\ngone\nkept\n1\n"
    sh(client, staged, "echo 2 > a; mkdir docs; echo x > docs/x; rm a; echo 3 > a")
    assert client.folder_commit(session=staged, name="f").conflicts == 0
    assert ((shared / "a").read_text(), os.listdir(shared / "docs")) == ("3\n", ["x"])


def test_a_directory_made_anew_hides_the_old_one(client: Client, staged: str, shared: Path) -> None:
    sh(client, staged, "rm -r docs; mkdir docs; echo other > docs/other")
    assert listed(client, staged) == [
        ("deleted", "docs/moved"),
        ("deleted", "docs/old"),
        ("added", "docs/other"),
    ]
    assert client.folder_discard(session=staged, name="f", paths=(OsBytes(b"docs/old"),)).discarded == 1
    assert sh(client, staged, "cat docs/old/letter; ls docs") == "a letter\nold\nother\n"
    client.folder_commit(session=staged, name="f")
    assert sorted(os.listdir(shared / "docs")) == ["old", "other"]
    assert client.folder_changes(session=staged, name="f").total == 0


def test_a_file_where_a_directory_was_and_the_other_way_round(client: Client, staged: str, shared: Path) -> None:
    sh(client, staged, "rm -r docs; echo file > docs; rm kept; mkdir kept; echo in > kept/in")
    done = client.folder_commit(session=staged, name="f")
    assert (done.conflicts, done.failed) == (0, 0), done
    assert ((shared / "docs").read_text(), (shared / "kept" / "in").read_text()) == ("file\n", "in\n")


def test_what_the_host_changed_meanwhile_is_a_conflict(client: Client, staged: str, shared: Path) -> None:
    sh(client, staged, "echo mine >> edited; rm -r docs")
    time.sleep(0.02)
    (shared / "edited").write_text("the user's\n")
    (shared / "docs" / "new").write_text("the user's\n")
    done = client.folder_commit(session=staged, name="f")
    assert {(os.fsdecode(each.path), each.state) for each in done.results} == {
        ("edited", "conflict"),
        ("docs", "conflict"),
    }
    assert (shared / "edited").read_text() == "the user's\n"
    assert (shared / "docs" / "old" / "letter").exists()
    assert client.folder_commit(session=staged, name="f", overwrite=True).committed == 2
    assert ((shared / "edited").read_text()[-5:], (shared / "docs").exists()) == ("mine\n", False)


def test_a_discard_gives_back_what_the_host_has(client: Client, staged: str) -> None:
    sh(client, staged, "echo mine >> edited; rm gone; echo x > x")
    assert client.folder_discard(session=staged, name="f").discarded == 3
    assert sh(client, staged, "cat edited gone; ls") == "one\ntwo\nthree\ngone\ndocs\nedited\ngone\nkept\n"


def test_a_file_that_comes_into_view_again_is_not_taken_for_its_renamed_copy(
    client: Client, staged: str, shared: Path
) -> None:
    """overlayfs knows a file that was renamed by where it was copied from, and that is there again after a discard."""
    sh(client, staged, "mv edited renamed; echo more >> renamed")
    client.folder_discard(session=staged, name="f", paths=(OsBytes(b"edited"),))
    assert sh(client, staged, "cat edited") == "one\ntwo\nthree\n"
    sh(client, staged, "cat renamed > /dev/null; echo new > edited; cat edited renamed > /dev/null")
    assert sh(client, staged, "cat edited; cat renamed") == "new\none\ntwo\nthree\nmore\n"
    client.folder_commit(session=staged, name="f")
    assert (shared / "edited").read_text() == "new\n"
    assert (shared / "renamed").read_text() == "one\ntwo\nthree\nmore\n"


def test_a_folder_in_use_is_not_committed_and_stays_in_view(client: Client, staged: str, shared: Path) -> None:
    sh(client, staged, "echo x > x")
    process = client.start(staged, ["sh", "-c", "cd ~/mnt/f && echo in && exec sleep 600"])
    assert next(output.data for output in process if output.data) == b"in\n"
    with pytest.raises(InvalidState, match="in use"):
        client.folder_commit(session=staged, name="f")
    assert not (shared / "x").exists()
    process.kill(grace_s=0)
    process.wait()
    assert client.folder_commit(session=staged, name="f").committed == 1
    assert (shared / "x").exists()


def test_a_command_that_runs_elsewhere_sees_the_folder_come_back(client: Client, staged: str, shared: Path) -> None:
    process = client.start(staged, ["sh", "-c", "cd /; read line; cat ~/mnt/f/x"], stdin=True)
    sh(client, staged, "echo through > x")
    assert client.folder_commit(session=staged, name="f").committed == 1
    assert process.communicate(b"go\n").streams["stdout"] == b"through\n"


def test_changes_outlive_the_session_being_closed_and_go_with_it(client: Client, daemon: Daemon, shared: Path) -> None:
    stages = daemon.state / ".coworkd" / "stages" / "gone"
    with session_of(client, "gone", folders=[FolderGrant(name="f", source=str(shared), mode="staged")]) as name:
        sh(client, name, "echo x > x")
        assert [path.read_text() for path in stages.glob("f/*/upper/x")] == ["x\n"]
    assert not stages.exists()


def test_coworkctl_shows_commits_and_discards(client: Client, daemon: Daemon, staged: str, shared: Path) -> None:
    sh(client, staged, "echo four >> edited; echo x > x; echo y > y")
    shown = daemon.ctl("folder", "changes", staged, "f").stdout.decode()
    assert [line.split()[:1] + line.split()[-1:] for line in shown.splitlines()[1:]] == [
        ["modified", "edited"],
        ["added", "x"],
        ["added", "y"],
    ]
    assert b"+four" in daemon.ctl("changes", staged, "f", "--diff", "edited").stdout
    assert daemon.ctl("commit", staged, "f", "x").returncode == 0
    assert daemon.ctl("discard", staged, "f", "y", "--yes").returncode == 0
    (shared / "edited").write_text("the user's\n")
    failed = daemon.ctl("folder", "commit", staged, "f")
    assert (failed.returncode, b"conflict" in failed.stdout) == (1, True), failed
    assert sorted(os.listdir(shared)) == ["docs", "edited", "gone", "kept", "x"]


def test_tools_that_save_by_rename_are_held_back_too(client: Client, staged: str, shared: Path) -> None:
    sh(
        client,
        staged,
        "git init -q . && git config user.email a@b && git config user.name n && git add . && git commit -qm x",
    )
    done = client.folder_commit(session=staged, name="f")
    assert done.failed == done.conflicts == 0
    log = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(shared), "log", "--oneline"], capture_output=True, check=True
    )
    assert log.stdout.endswith(b"x\n")
