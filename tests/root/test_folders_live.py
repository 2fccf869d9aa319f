"""Folders that come, go and change while commands run: seen from inside, by one session and never by another; after kills, and from
shares that hang.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import AlreadyExists, CoworkError, InvalidState, NotFound, Unavailable
from coworkd.model.policy import FolderMode
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import children_of, client_of, exited, session_of, took_at_most, wait_until

pytestmark = [pytest.mark.needs("bubblewrap"), pytest.mark.needs("fuse")]
REPO = Path(__file__).resolve().parents[2]
PRIVATE = ("unshare", "--mount", "--propagation", "private", "--")
OWNER = 4321
_numbers = itertools.count(1)
TURNS = 10
DENIED = b"Operation not permitted"
COMES, MODES, MANY, LEAVES, WORK = (f"{word}-{os.getpid()}" for word in ("comes", "modes", "many", "leaves", "work"))
"""Sessions whose mounts are looked for on the whole machine, where another suite may run as well."""


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return made_directory(tmp_path / "shared")


def made_directory(place: Path) -> Path:
    """A host directory with a file, of somebody who is nobody of this machine."""
    place.mkdir()
    (place / "file").write_text(f"of {place.name}\n")
    for path in (place, place / "file"):
        os.chown(path, OWNER, OWNER)
    return place


class Shell:
    """A shell in a sandbox that runs on while folders, and coworkds, come and go."""

    def __init__(self, client: Client, process: Process, offset: int = 0) -> None:
        self.client = client
        self.process = process
        self.offset = offset
        """How much it was told so far; what is told is so little that it is taken at once."""

    def again(self, client: Client) -> Shell:
        """The same shell over another link."""
        return Shell(client, client.attach(self.process.id, stdout=0, stderr=0), self.offset)

    def say(self, line: str) -> bytes:
        """What the line says, on both streams together, without the last line end."""
        number = next(_numbers)
        begin, end = b"<%d>" % number, b"<end of %d>" % number
        words = f"printf '%s' '{begin.decode()}'\n{{ {line}\n}} 2>&1\nprintf '%s' '{end.decode()}'\n"
        answer = self.client.process_write_stdin(process=self.process.id, offset=self.offset, data=words.encode())
        self.offset = answer.offset
        said = b""
        while not said.endswith(end):
            piece = self.process.read(timeout_s=60)
            assert piece is not None, said
            said += piece.data
        return said.partition(begin)[2].removesuffix(end).rstrip(b"\n")


@contextlib.contextmanager
def shell_in(client: Client, session: str) -> Iterator[Shell]:
    with client.start(session, ["sh"], stdin=True) as process:
        yield Shell(client, process)


def grant(source: Path, mode: FolderMode = "ro", name: str = "f", *, required: bool = True) -> FolderGrant:
    return FolderGrant(name=name, source=str(source), mode=mode, required=required)


def states(client: Client, session: str) -> dict[str, str]:
    return {each.name: each.state for each in client.folder_list(session=session).folders}


def mounts_of(session: str) -> list[str]:
    """The mount points of this session's folders in every mount namespace of the machine."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{entry}/mountinfo").read_text().splitlines():
                    place = line.split()[4]
                    if f"/sessions/{session}/mnt/" in place:
                        found.add(place)
    return sorted(found)


# -- while commands run --------------------------------------------------------------------------------------------


def test_folders_come_and_go_in_a_running_command_and_no_other_session_sees_them(
    client: Client, tmp_path: Path
) -> None:
    a, b = made_directory(tmp_path / "a"), made_directory(tmp_path / "b")
    with session_of(client, COMES), session_of(client, "other"):
        with shell_in(client, COMES) as inside, shell_in(client, "other") as other:
            assert inside.say("ls mnt") == b""
            told = client.folder_mount(session=COMES, name="a", source=str(a), mode="ro").folder
            assert (told.state, told.path, told.mounted_as) == ("mounted", f"/sessions/{COMES}/mnt/a", "idmapped")
            assert inside.say("cat mnt/a/file") == b"of a"
            assert b"Read-only file system" in inside.say("echo x > mnt/a/new")
            client.folder_mount(session=COMES, name="b", source=str(b), mode="rwd")
            assert inside.say("ls mnt; rm mnt/b/file; echo mine > mnt/b/new; ls mnt/b") == b"a\nb\nnew"
            assert len(set(inside.say("id -u; stat -c %u mnt/b/new").split())) == 1
            assert (os.listdir(b), (b / "new").stat().st_uid) == (["new"], OWNER)
            assert other.say("ls mnt; ls /sessions") == b"other"
            assert client.run(COMES, ["ls", "mnt"]).stdout == b"a\nb\n"
            assert client.folder_unmount(session=COMES, name="a").busy is False
            assert inside.say("ls mnt; ls mnt/a") == b"b\nls: cannot access 'mnt/a': No such file or directory"
            assert states(client, COMES) == {"b": "mounted"}
            with pytest.raises(NotFound):
                client.folder_unmount(session=COMES, name="a")
        assert client.run(COMES, ["ls", "mnt"]).stdout == b"b\n"
    assert mounts_of(COMES) == []


def test_a_folder_in_rw_keeps_what_is_the_users_and_takes_another_rule_while_a_command_runs(
    client: Client, shared: Path
) -> None:
    with session_of(client, "rules", folders=[grant(shared, "rw")]), shell_in(client, "rules") as inside:
        assert DENIED in inside.say("rm mnt/f/file")
        assert inside.say("cd mnt/f; echo mine > own; echo more >> file; rm own; ls") == b"file"
        assert (shared / "file").read_text() == "of shared\nmore\n"
        assert client.folder_set_mode(session="rules", name="f", mode="rwd").folder.mounted_as == "guarded"
        assert inside.say("touch keep; cp file copy; rm file; ls") == b"copy\nkeep"
        assert client.folder_set_mode(session="rules", name="f", mode="rw").folder.mode == "rw"
        (shared / "host").write_text("by the host")
        assert DENIED in inside.say("rm -f host; ls")
        assert {path.stat().st_uid for path in (shared / "keep", shared / "copy")} == {OWNER}


def test_another_mode_by_another_mount_tells_who_keeps_the_old_one(client: Client, shared: Path) -> None:
    with session_of(client, MODES, folders=[grant(shared)]), shell_in(client, MODES) as inside:
        inside.say("cd mnt/f")
        told = client.folder_set_mode(session=MODES, name="f", mode="rwd").folder
        assert told.state == "mounted"
        assert told.degraded
        assert b"Read-only" in inside.say("touch here")
        assert inside.say("touch ~/mnt/f/there; cd ~/mnt/f; rm file; ls") == b"there"
        gone = client.folder_unmount(session=MODES, name="f")
        assert gone.busy
        assert gone.leftovers
        assert inside.say("cd; ls mnt") == b""
    assert mounts_of(MODES) == []


def test_ensure_changes_the_folders_of_running_commands(client: Client, tmp_path: Path) -> None:
    a, b, c = (made_directory(tmp_path / name) for name in "abc")
    with (
        session_of(client, "ensured", folders=[grant(a, name="a"), grant(b, "rw", name="b")]),
        shell_in(client, "ensured") as inside,
    ):
        before = client.session_get(session="ensured").session.processes
        client.session_ensure(name="ensured", folders=[grant(b, "rwd", name="b"), grant(c, name="c")])
        assert client.session_get(session="ensured").session.processes == before == 1
        assert inside.say("ls mnt; rm mnt/b/file; ls mnt/b; cat mnt/c/file") == b"b\nc\nof c"
        missing = grant(tmp_path / "missing", name="m")
        with pytest.raises(InvalidState, match="missing is not there"):
            client.session_ensure(name="ensured", folders=[grant(a, name="a"), missing])
        assert inside.say("ls mnt; cat mnt/c/file") == b"b\nc\nof c"
        assert states(client, "ensured") == {"b": "mounted", "c": "mounted"}
        client.session_ensure(name="ensured", folders=[])
        assert inside.say("ls mnt") == b""


def test_a_single_file_is_a_folder_too(client: Client, shared: Path) -> None:
    (shared / "more").write_text("more\n")
    os.chown(shared / "more", OWNER, OWNER)
    grants = [grant(shared / "file"), grant(shared / "more", "rw", name="g")]
    with session_of(client, "single", folders=grants), shell_in(client, "single") as inside:
        assert inside.say("cat mnt/f; echo changed > mnt/g; rm -f mnt/g; rm -f mnt/f; ls mnt").split(b"\n")[-2:] == [
            b"f",
            b"g",
        ]
        assert (shared / "more").read_text() == "changed\n"
        assert b"Read-only" in inside.say("echo x > mnt/f")
    assert sorted(os.listdir(shared)) == ["file", "more"]


@pytest.mark.parametrize("name", ["a b", ".hidden", "-.x"[1:], "x" * 64, "a..b", "9"])
def test_odd_names_and_sources_are_mounted_as_they_are(client: Client, tmp_path: Path, name: str) -> None:
    source = made_directory(tmp_path / "line\nend :\\ 'ä")
    with session_of(client, "odd"), shell_in(client, "odd") as inside:
        told = client.folder_mount(session="odd", name=name, source=str(source), mode="rw").folder
        assert told.state == "mounted"
        assert inside.say(f"cat 'mnt/{name}/file'").startswith(b"of line")
        client.folder_unmount(session="odd", name=name)
        assert inside.say("ls -A mnt") == b""


def test_two_hosts_that_mount_one_name_at_once_get_one_folder(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    sources = [made_directory(tmp_path / name) for name in "ab"]
    outcomes: list[str] = []

    def ask(source: Path) -> None:
        with client_of(daemon) as host:
            try:
                outcomes.append(
                    host.folder_mount(session="both", name="f", source=str(source), mode="rwd").folder.source
                )
            except AlreadyExists:
                outcomes.append("refused")

    with session_of(client, "both"):
        hosts = [threading.Thread(target=ask, args=(sources[number % 2],)) for number in range(6)]
        for host in hosts:
            host.start()
        for host in hosts:
            host.join()
        (winner,) = {outcome for outcome in outcomes if outcome != "refused"}
        assert outcomes.count(winner) == outcomes.count("refused") == 3
        assert client.run("both", ["cat", "mnt/f/file"]).stdout.decode() == f"of {Path(winner).name}\n"


def test_sixty_four_folders_are_mounted_and_one_more_is_refused(client: Client, tmp_path: Path) -> None:
    sources = [made_directory(tmp_path / f"s{number}") for number in range(64)]
    modes: tuple[FolderMode, ...] = ("ro", "rwd", "ro", "rw")
    grants = [grant(source, modes[place % 4], source.name) for place, source in enumerate(sources)]
    with session_of(client, MANY, folders=grants):
        assert len(client.run(MANY, ["sh", "-c", "cat mnt/*/file"]).stdout.splitlines()) == 64
        with pytest.raises(CoworkError, match="at most 64"):
            client.folder_mount(session=MANY, name="more", source=str(tmp_path), mode="ro")
    assert mounts_of(MANY) == []


def test_a_session_that_is_deleted_leaves_its_folders_content_and_nothing_else(
    daemon: Daemon, client: Client, shared: Path
) -> None:
    with session_of(client, LEAVES, folders=[grant(shared, "rw")]), shell_in(client, LEAVES) as inside:
        inside.say("echo new > mnt/f/new")
        client.session_delete(session=LEAVES, force=True)
    assert sorted(os.listdir(shared)) == ["file", "new"]
    assert not (daemon.state / ".coworkd" / "folders" / LEAVES).exists()
    assert mounts_of(LEAVES) == []


def test_an_ephemeral_sessions_folders_go_with_its_link(daemon: Daemon, shared: Path) -> None:
    with client_of(daemon) as host:
        host.session_ensure(name="passing", ephemeral=True)
        host.folder_mount(session="passing", name="f", source=str(shared), mode="rw")
        assert host.run("passing", ["ls", "mnt/f"]).stdout == b"file\n"
    with client_of(daemon) as host:
        wait_until(lambda: all(each.name != "passing" for each in host.session_list().sessions), "it is deleted")
    assert os.listdir(shared) == ["file"]


# -- sources that are not there ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "link", "below a link", "fifo"])
def test_a_source_that_cannot_be_is_told_and_stops_no_command(
    client: Client, shared: Path, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "source"
    if kind == "link":
        source.symlink_to(shared)
    elif kind == "fifo":
        os.mkfifo(source)
    elif kind == "below a link":
        source.symlink_to(tmp_path)
        source = source / "shared"
    with session_of(client, "lacks", folders=[grant(shared)]):
        with pytest.raises(InvalidState) as caught:
            client.folder_mount(session="lacks", name="g", source=str(source), mode="ro")
        details = caught.value.details
        assert (details["folder"], details["path"]) == ("g", str(source))
        assert isinstance(details["errno"], int)
        assert "incident" not in details
        told = client.folder_mount(session="lacks", name="g", source=str(source), mode="ro", required=False).folder
        assert told.state == "failed"
        assert str(source) in (told.error or "")
        assert client.run("lacks", ["ls", "mnt"]).stdout == b"f\n"
        (failed,) = client.session_ensure(name="lacks").failed_folders
        assert failed.name == "g"


@contextlib.contextmanager
def share_of(daemon: Daemon, directory: Path, number: int) -> Iterator[Callable[[], None]]:
    """A share in coworkd's mount namespace; the call makes it hang."""
    directory.mkdir()
    words = ["nsenter", "--target", str(daemon.child.pid), "--mount", f"--wd={REPO}", "--"]
    words += [sys.executable, "-m", "tests.root.share_server", str(directory), str(number)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        stdin = server.stdin

        def hang() -> None:
            stdin.write(b"\n")
            stdin.flush()

        try:
            yield hang
        finally:
            stdin.close()
            server.wait(60)


def test_a_share_that_hangs_or_fails_is_told_and_stops_nobody(tmp_path: Path, shared: Path) -> None:
    hanging, failing = tmp_path / "hangs", tmp_path / "stale"
    with (
        running_daemon(tmp_path / "d", through=PRIVATE) as daemon,
        client_of(daemon) as client,
        share_of(daemon, hanging, 0) as hang,
        share_of(daemon, failing, errno.ESTALE),
    ):
        hang()
        stale = grant(failing, name="s", required=False)
        with took_at_most(9):
            grants = [grant(shared), grant(hanging, name="h", required=False), stale]
            done = client.session_ensure(name="patient", folders=grants)
        assert [failed.name for failed in done.failed_folders] == ["h", "s"]
        assert "did not answer" in done.failed_folders[0].error
        assert "stale" in done.failed_folders[1].error
        with took_at_most(5):
            assert client.run("patient", ["ls", "mnt"]).stdout == b"f\n"
        with took_at_most(9), pytest.raises(Unavailable, match="did not answer"):
            client.session_ensure(name="impatient", folders=[grant(hanging, name="h")])
        with pytest.raises(NotFound):
            client.session_get(session="impatient")
        assert client.session_ensure(name="patient", folders=[grant(shared)]).failed_folders == ()
        client.session_delete(session="patient")


def test_a_command_that_hangs_in_a_share_keeps_neither_its_deletion_nor_coworkd(tmp_path: Path) -> None:
    share = tmp_path / "hangs"
    with (
        running_daemon(tmp_path / "d", through=PRIVATE) as daemon,
        share_of(daemon, share, 0) as hang,
        client_of(daemon) as client,
    ):
        client.session_ensure(name="hangs", folders=[grant(share, "ro")])
        hang()
        client.start("hangs", ["ls", "mnt/f/x"])
        with took_at_most(15), pytest.raises(Unavailable, match="does not answer"):
            client.session_delete(session="hangs", force=True)
        assert client.session_get(session="hangs").session.state == "deleting"
        assert client.session_ensure(name="another").created
        daemon.child.terminate()
        assert daemon.child.wait(40) == 0
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        wait_until(lambda: [each.name for each in client.session_list().sessions] == ["another"], "it is deleted")
        client.session_delete(session="another")


# -- staged, and a share -------------------------------------------------------------------------------------------


@pytest.mark.needs("overlay")
def test_what_is_held_back_outlives_unmounting_and_stays_with_its_source(client: Client, tmp_path: Path) -> None:
    a, b = made_directory(tmp_path / "a"), made_directory(tmp_path / "b")
    with session_of(client, "staged", folders=[grant(a, "staged")]):
        client.run("staged", ["sh", "-c", "echo held > mnt/f/new; rm mnt/f/file"])
        assert os.listdir(a) == ["file"]
        assert "kept" in client.folder_unmount(session="staged", name="f").leftovers[0]
        client.folder_mount(session="staged", name="f", source=str(b), mode="staged")
        assert client.run("staged", ["ls", "mnt/f"]).stdout == b"file\n"
        client.folder_set_mode(session="staged", name="f", mode="ro")
        client.folder_unmount(session="staged", name="f")
        client.folder_mount(session="staged", name="f", source=str(a), mode="staged")
        assert client.run("staged", ["ls", "mnt/f"]).stdout == b"new\n"
        changes = client.folder_changes(session="staged", name="f").changes
        assert [(change.path, change.kind) for change in changes] == [(b"file", "deleted"), (b"new", "added")]
    assert (os.listdir(a), os.listdir(b)) == (["file"], ["file"])


def test_with_a_share_root_folders_are_below_it_and_nowhere_else(tmp_path: Path) -> None:
    share = tmp_path / "share"
    (share / "run").mkdir(parents=True)
    made_directory(share / "run" / "work")
    made_directory(tmp_path / "outside")
    (share / "link").symlink_to(tmp_path / "outside")
    through = [sys.executable, "-m", "tests.root.shared_local", str(share)]
    with running_daemon(tmp_path / "d", through=through) as daemon, client_of(daemon) as client:
        for source in ("run/work", "/run/work", "run//./work/"):
            with session_of(client, "shared", folders=[FolderGrant(name="f", source=source, mode="ro")]):
                assert client.run("shared", ["cat", "mnt/f/file"]).stdout == b"of work\n"
        for source in ("../outside", "run/../../outside", "/..", "link", "link/file", str(tmp_path / "outside")):
            with pytest.raises(CoworkError):
                client.session_ensure(name="shared", folders=[FolderGrant(name="f", source=source, mode="ro")])
        assert client.session_list().sessions == ()


# -- restarts ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def killed_daemon(place: Path) -> Iterator[Daemon]:
    """A coworkd for the block, killed at its end; its launcher lives on for a while."""
    with running_daemon(place) as daemon:
        yield daemon
        if daemon.child.poll() is None:
            daemon.child.kill()
        assert daemon.child.wait(60) == -signal.SIGKILL


def test_folders_outlive_coworkd_and_obey_the_next_one(tmp_path: Path, shared: Path) -> None:
    with killed_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work", folders=[grant(shared, "rw")])
        before = Shell(client, client.start("work", ["sh"], stdin=True))
        before.say("echo mine > mnt/f/own")
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        assert states(client, "work") == {"f": "mounted"}
        inside = before.again(client)
        assert DENIED in inside.say("rm mnt/f/own; rm mnt/f/file")
        client.folder_set_mode(session="work", name="f", mode="rwd")
        inside.say("rm mnt/f/file")
        assert os.listdir(shared) == []
        client.folder_unmount(session="work", name="f")
        assert inside.say("ls mnt") == b""
        client.session_delete(session="work", force=True)


def test_the_folders_of_an_idle_session_obey_the_next_coworkd_too(tmp_path: Path, shared: Path) -> None:
    with killed_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work", folders=[grant(shared, "rwd"), grant(shared, "rwd", "g")])
        assert client.run("work", ["ls", "mnt"]).stdout == b"f\ng\n"
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.folder_unmount(session="work", name="f")
        client.folder_set_mode(session="work", name="g", mode="ro")
        assert client.run("work", ["ls", "mnt"]).stdout == b"g\n"
        assert client.run("work", ["rm", "mnt/g/file"]).exit != exited(0)
        client.session_delete(session="work")
    assert os.listdir(shared) == ["file"]


def test_folders_come_back_with_another_launcher(tmp_path: Path) -> None:
    a, b = made_directory(tmp_path / "a"), made_directory(tmp_path / "b")
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work", folders=[grant(a, "rw", "a"), grant(b, "ro", "b", required=False)])
        client.run("work", ["sh", "-c", "echo mine > mnt/a/own"])
        before = client.info().launcher_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: client.info().launcher_pid not in (0, before), "another launcher is there")
        script = "rm mnt/a/own; rm mnt/a/file; cat mnt/b/file"
        ran = client.run("work", ["sh", "-c", script])
        assert (ran.stdout, DENIED in ran.stderr) == (b"of b\n", True)
        assert os.listdir(a) == ["file"]
        assert states(client, "work") == {"a": "mounted", "b": "mounted"}
        (a / "file").unlink()
        a.rmdir()
        launcher = client.info().launcher_pid
        assert launcher is not None
        os.kill(launcher, signal.SIGKILL)
        wait_until(lambda: client.info().launcher_pid not in (0, launcher), "a third launcher is there")
        with pytest.raises(InvalidState, match="is not there"):
            client.run("work", ["true"])
        client.folder_unmount(session="work", name="a")
        assert client.run("work", ["ls", "mnt"]).stdout == b"b\n"
        client.session_delete(session="work")


def servers_of(launcher: int) -> list[int]:
    """The file systems of guarded folders."""
    found = []
    for pid in children_of(launcher):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "coworkd-fs\n":
                found.append(pid)
    return found


def test_a_folder_whose_file_system_was_killed_is_there_again_in_the_running_command(
    tmp_path: Path, shared: Path
) -> None:
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work", folders=[grant(shared, "rw")])
        with shell_in(client, "work") as inside:
            assert inside.say("echo mine > mnt/f/own; ls mnt/f") == b"file\nown"
            (server,) = servers_of(client.info().launcher_pid)
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: servers_of(client.info().launcher_pid) not in ([server], []), "another one serves")
            wait_until(lambda: states(client, "work") == {"f": "mounted"}, "it is mounted")
            assert inside.say("rm mnt/f/own; ls mnt/f") == b"file"
            assert DENIED in inside.say("rm mnt/f/file")
        client.session_delete(session="work", force=True)


def change_for_ever(daemon: Daemon, sources: dict[str, Path], seed: int) -> None:
    """Verbs of folders in any order, until coworkd is gone."""
    choose = random.Random(seed)
    modes: tuple[FolderMode, ...] = ("ro", "rw", "rwd")
    with contextlib.suppress(Unavailable, OSError), client_of(daemon) as host:
        while True:
            name = choose.choice(tuple(sources))
            mode = choose.choice(modes)
            verb = choose.choice(("mount", "unmount", "mode", "ensure"))
            with contextlib.suppress(NotFound, AlreadyExists):
                if verb == "mount":
                    host.folder_mount(session=WORK, name=name, source=str(sources[name]), mode=mode)
                elif verb == "unmount":
                    host.folder_unmount(session=WORK, name=name)
                elif verb == "mode":
                    host.folder_set_mode(session=WORK, name=name, mode=mode)
                else:
                    chosen = choose.sample(tuple(sources), 2)
                    host.session_ensure(name=WORK, folders=[grant(sources[each], mode, each) for each in chosen])


def test_a_kill_of_coworkd_at_any_moment_leaves_what_its_record_says(tmp_path: Path) -> None:
    sources = {name: made_directory(tmp_path / name) for name in "abc"}
    random.seed(20260)
    shell: Shell | None = None
    for turn in range(TURNS):
        with killed_daemon(tmp_path / "d") as daemon:
            with client_of(daemon) as client:
                client.session_ensure(name=WORK)
                shell = shell.again(client) if shell else Shell(client, client.start(WORK, ["sh"], stdin=True))
                check_as_recorded(client, shell)
            changing = threading.Thread(target=change_for_ever, args=(daemon, sources, turn))
            changing.start()
            time.sleep(random.uniform(0.05, 0.6))
            daemon.child.kill()
            daemon.child.wait(60)
            changing.join()
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        assert shell is not None
        check_as_recorded(client, shell.again(client))
        client.session_delete(session=WORK, force=True)
    assert mounts_of(WORK) == []
    assert {name: os.listdir(source) for name, source in sources.items()} == {name: ["file"] for name in sources}


def check_as_recorded(client: Client, inside: Shell) -> None:
    """What the running command sees is what the record says, each in its mode."""
    listed: dict[str, Any] = {each.name: each for each in client.folder_list(session=WORK).folders}
    assert {each.state for each in listed.values()} <= {"mounted"}
    inside.say("cd")
    assert inside.say("ls mnt").decode().split() == sorted(listed)
    for name, folder in listed.items():
        said = inside.say(f"cd mnt/{name} && echo x > probe-{folder.mode}; ls; rm -f probe-{folder.mode}; cd")
        if folder.mode == "ro":
            assert b"Read-only" in said
        else:
            assert f"probe-{folder.mode}".encode() in said
