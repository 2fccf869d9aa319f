"""A coworkd on a session disk of its own: full of bytes, full of files, read-only, cut short and back, and asked for by two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import Unavailable
from tests.root.conftest import Daemon, running_daemon
from tests.root.disk_lab import MIB, make_file, overwrite
from tests.root.live import client_of, program, wait_until

pytestmark = pytest.mark.needs("loop", "bubblewrap")
_REPO = Path(__file__).resolve().parents[2]
_WAIT_S = 45


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, "--disk", f"{tmp_path / 'disk'}:64M") as daemon:
        yield daemon
    assert_nothing_left(tmp_path)


def assert_nothing_left(place: Path) -> None:
    """No mount at once; a loop device goes with the last namespace that saw it, which the kernel takes down a moment later."""
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    wait_until(lambda: str(place) not in _loops(), f"a loop device is left: {_loops()}", _WAIT_S)


def _loops() -> str:
    return subprocess.run(("losetup", "-a"), capture_output=True, text=True, check=True).stdout


def sessions_of(daemon: Daemon) -> Path:
    return daemon.state / "sessions"


def wait_for(true: Callable[[], object]) -> None:
    wait_until(true, "it did not come about", _WAIT_S)


def state_of(client: Client) -> str:
    return client.storage_usage().state


def test_sessions_live_on_the_disk_and_outlive_coworkd(tmp_path: Path) -> None:
    options = ("--disk", f"{tmp_path / 'disk'}:64M")
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        usage = client.storage_usage()
        assert (usage.kind, usage.state, usage.quota) == ("loop", "ok", "watched")
        assert usage.reserved_bytes > 2 * MIB
        client.session_ensure(name="kept")
        assert client.run(session="kept", argv=["sh", "-c", "echo here >~/file"]).exit.code == 0
        actions = [
            record["action"] for record in client.audit_tail(limit=50).records if record["kind"] == "storage.change"
        ]
        assert "mkfs" in actions
    assert_nothing_left(tmp_path)
    assert not (daemon.state / "sessions" / "kept").exists()
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        assert client.run(session="kept", argv=["cat", "file"]).stdout == b"here\n"
        assert "storage" not in client.hello.degraded
        assert client.audit_verify().ok
    assert_nothing_left(tmp_path)


FILLS = {
    "bytes": "cat /dev/zero >~/filler; true",
    "files": "i=0; while true >~/f/$i; do i=$((i+1)); done 2>/dev/null; true",
}


@pytest.mark.parametrize("what", FILLS)
def test_a_full_disk_stops_neither_coworkd_nor_a_new_command(on_disk: Daemon, what: str) -> None:
    with client_of(on_disk) as client:
        assert_goes_on_when_full(client, what)
        assert client.storage_usage().pressure == 0


@pytest.mark.parametrize("what", FILLS)
@pytest.mark.needs("mountns")
def test_a_full_directory_stops_neither_coworkd_nor_a_new_command(tmp_path: Path, what: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=48m,nr_inodes=2000", "none", str(state)), check=True)
    try:
        with running_daemon(tmp_path) as daemon, client_of(daemon) as client:
            assert client.storage_usage().kind == "directory"
            assert_goes_on_when_full(client, what)
    finally:
        subprocess.run(("umount", str(state)), check=True)


def assert_goes_on_when_full(client: Client, what: str) -> None:
    client.session_ensure(name="hog")
    client.session_ensure(name="other")
    assert (
        client.run(
            session="hog", argv=["sh", "-c", f"mkdir -p ~/f ~/tmp; echo x >~/tmp/x; {FILLS[what]}"], timeout_s=60
        ).exit.code
        == 0
    )
    more = "echo x >~/f/more" if what == "files" else "head -c 4000000 /dev/zero >~/more"
    assert b"No space left" in client.run(session="hog", argv=["sh", "-c", more]).stderr
    wait_for(lambda: client.storage_usage().pressure == 95)
    assert state_of(client) == "ok"
    # A command that was there before the disk was full, and one that is new.
    for session in ("hog", "other"):
        assert client.run(session=session, argv=["echo", "runs"]).stdout == b"runs\n"
    assert {info.name for info in client.session_list().sessions} == {"hog", "other"}
    before = client.audit_tail(limit=1).records[-1]["seq"]
    client.run(session="other", argv=["true"])
    assert client.audit_tail(limit=1).records[-1]["seq"] > before
    assert client.session_prune(session="hog").files == 1
    client.session_delete(session="hog")
    client.session_ensure(name="after")
    assert client.run(session="after", argv=["sh", "-c", "echo room >~/file; cat ~/file"]).stdout == b"room\n"
    assert client.audit_verify().ok
    wait_for(lambda: client.storage_usage().pressure == 0)


def test_a_disk_that_becomes_read_only_stops_sessions_is_told_and_repaired(tmp_path: Path) -> None:
    options = ("--disk", f"{tmp_path / 'disk'}:64M")
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client, client_of(daemon) as hearing:
        client.session_ensure(name="bob")
        client.run(session="bob", argv=["sh", "-c", "echo kept >~/file"])
        events = hearing.events()
        os.sync()
        # What ext4 does by itself after an error.
        subprocess.run(("mount", "-o", "remount,abort", str(sessions_of(daemon))), check=True)
        wait_for(lambda: state_of(client) == "degraded")
        with pytest.raises(Unavailable, match="read-only"):
            client.session_ensure(name="eve")
        with pytest.raises(Unavailable, match="read-only"):
            client.run(session="bob", argv=["true"])
        assert [info.name for info in client.session_list().sessions] == ["bob"]
        client.ping()
        assert "read-only" in str(client.storage_usage().reason)
        with client_of(daemon) as another:
            assert "read-only" in another.hello.degraded["storage"]
        told = [event.params["state"] for event in _until(events, "degraded") if event.name == "storage.state"]
        assert told[-1] == "degraded"
    assert_nothing_left(tmp_path)
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        assert state_of(client) == "ok"
        assert client.run(session="bob", argv=["cat", "file"]).stdout == b"kept\n"
        assert client.audit_verify().ok
    assert_nothing_left(tmp_path)


def _until(events: Any, state: str) -> Iterator[Any]:
    for event in events:
        yield event
        if event.name == "storage.state" and event.params["state"] == state:
            return


def test_a_disk_that_was_cut_short_and_is_whole_again_is_come_up_on_anew(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with running_daemon(tmp_path, "--disk", f"{disk}:64M") as daemon:
        with client_of(daemon) as client:
            client.session_ensure(name="bob")
            client.run(session="bob", argv=["sh", "-c", "echo kept >~/file; sync"])
            done = client.start("bob", ["sh", "-c", "echo said; exit 3"], attach=False)
            assert done.wait(60).exit.code == 3
            running = client.start("bob", ["sleep", "600"], attach=False)
            device = client.storage_usage().device
            assert device is not None
            os.sync()
            tail = disk.read_bytes()[48 * MIB :]
            os.truncate(disk, 48 * MIB)
            subprocess.run(("losetup", "--set-capacity", device), check=True)
            wait_for(lambda: state_of(client) == "degraded")
            with pytest.raises(Unavailable, match="cut short"):
                client.session_ensure(name="eve")
        overwrite(disk, 48 * MIB, tail)
        wait_for(lambda: _answers(daemon, "bob"))
        with client_of(daemon) as client:
            assert client.run(session="bob", argv=["cat", "file"]).stdout == b"kept\n"
            known = {each.process: each.exit for each in client.process_list().processes}
            ends = [(end.exit.code, end.exit.reason) for id in (done.id, running.id) if (end := known.get(id))]
            assert ends == [(3, "exited"), (None, "killed")]
            assert b"".join(piece.data for piece in client.attach(done.id, stdout=0)) == b"said\n"
            assert client.audit_verify().ok
    assert_nothing_left(tmp_path)


def _answers(daemon: Daemon, session: str) -> bool:
    try:
        with client_of(daemon) as client:
            return state_of(client) == "ok" and client.run(session=session, argv=["true"]).exit.code == 0
    except (OSError, Unavailable):
        return False


def test_a_foreign_disk_leaves_coworkd_up_and_without_sessions(tmp_path: Path) -> None:
    disk = make_file(tmp_path / "disk", 64 * MIB)
    overwrite(disk, 0, b"somebody's data")
    with running_daemon(tmp_path, "--disk", f"{disk}:64M") as daemon:
        with client_of(daemon) as client:
            assert "data without a signature" in client.hello.degraded["storage"]
            assert state_of(client) == "absent"
            with pytest.raises(Unavailable, match="nothing can be started"):
                client.session_ensure(name="bob")
            assert client.session_list().sessions == ()
            assert client.audit_verify().ok
        assert disk.read_bytes()[:15] == b"somebody's data"
        # Once it is blank it is what it was meant to be, and coworkd comes up anew on it by itself.
        wait_until(lambda: "left as it is" in daemon.log.read_text(), "the disk was not looked at again", _WAIT_S)
        overwrite(disk, 0, bytes(15))
        wait_for(lambda: _is_ok(daemon))
        with client_of(daemon) as client:
            client.session_ensure(name="bob")
            assert client.run(session="bob", argv=["echo", "hi"]).stdout == b"hi\n"
    assert_nothing_left(tmp_path)


def _is_ok(daemon: Daemon) -> bool:
    try:
        with client_of(daemon) as client:
            return state_of(client) == "ok"
    except (OSError, Unavailable):
        return False


def test_a_second_coworkd_on_one_disk_is_refused_with_who_has_it(on_disk: Daemon, tmp_path: Path) -> None:
    for state, said in ((on_disk.state, f"pid {on_disk.child.pid}"), (tmp_path / "other", "is in use as /dev/loop")):
        command = [sys.executable, "-m", "coworkd", "local", "--state", str(state)]
        command += ["--socket", str(tmp_path / "second.sock"), "--disk", f"{tmp_path / 'disk'}:64M"]
        with program(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=_REPO) as second:
            assert second.stdout is not None
            lines = []
            for line in second.stdout:
                lines.append(line.decode())
                if said in lines[-1]:
                    break
            second.terminate()
            second.wait(60)
        assert said in lines[-1], lines


def test_a_second_coworkd_on_one_directory_is_refused_with_who_has_it(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        command = [sys.executable, "-m", "coworkd", "local", "--state", str(daemon.state)]
        command += ["--socket", str(tmp_path / "second.sock")]
        second = subprocess.run(command, capture_output=True, text=True, cwd=_REPO, timeout=120, check=False)
        assert second.returncode == 1
        assert f"in use by another coworkd (pid {daemon.child.pid})" in second.stderr


def test_a_disk_outlives_a_coworkd_that_was_killed_and_is_taken_over(tmp_path: Path) -> None:
    options = ("--disk", f"{tmp_path / 'disk'}:64M")
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        client.session_ensure(name="bob")
        client.run(session="bob", argv=["sh", "-c", "echo kept >~/file"])
        daemon.child.kill()
        daemon.child.wait()
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        assert client.run(session="bob", argv=["cat", "file"]).stdout == b"kept\n"
        assert "found mounted" in daemon.log.read_text()
    assert_nothing_left(tmp_path)


def test_a_disk_outlives_a_coworkd_and_a_launcher_that_were_killed(tmp_path: Path) -> None:
    options = ("--disk", f"{tmp_path / 'disk'}:64M")
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        client.session_ensure(name="bob")
        client.run(session="bob", argv=["sh", "-c", "echo kept >~/file"])
        launcher = client.info().launcher_pid
        daemon.child.kill()
        os.kill(launcher, signal.SIGKILL)
        daemon.child.wait()
        wait_for(lambda: not Path(f"/proc/{launcher}").exists())
    with running_daemon(tmp_path, *options) as daemon, client_of(daemon) as client:
        assert client.run(session="bob", argv=["cat", "file"]).stdout == b"kept\n"
        assert client.audit_verify().ok
    assert_nothing_left(tmp_path)
