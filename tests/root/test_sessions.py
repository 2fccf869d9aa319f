"""Sessions for real: made twice, found again after crashes, never with a foreign uid, their folders, their end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coworkd.cli.launcher_start import launcher_command
from coworkd.client.sync import Client
from coworkd.model import launch
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    InvalidParams,
    InvalidState,
    NotFound,
    PolicyDenied,
)
from coworkd.model.limits import CgroupLimits
from coworkd.system import packet
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, exited, fresh_mark, living, program, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A host directory with a file."""
    place = tmp_path / "shared"
    place.mkdir()
    (place / "file").write_text("of the host\n")
    return place


def record_of(daemon: Daemon, name: str) -> Path:
    return daemon.state / ".coworkd" / "sessions" / f"{name}.json"


def is_unknown(client: Client, name: str) -> bool:
    """Whether coworkd has let go of the session, which it does last, when nothing of it is on the disk."""
    try:
        client.session_get(session=name)
    except NotFound:
        return True
    return False


def change_record(daemon: Daemon, name: str, **fields: Any) -> None:
    path = record_of(daemon, name)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def folder(source: Path | str, mode: str = "ro", **fields: Any) -> Any:
    """A grant as it travels, so that wrong ones can be sent as well."""
    return {"name": "f", "source": str(source), "mode": mode, **fields}


# -- made and found ------------------------------------------------------------------------------------------------


def test_ensure_twice_finds_the_first(client: Client, daemon: Daemon) -> None:
    with session_of(client, "twice"):
        first = client.session_ensure(name="twice")
        assert not first.created
        assert first.session.state == "ready"
        assert first.session.uid == first.session.gid >= 1001
        home = os.lstat(daemon.state / "twice")
        assert (home.st_uid, home.st_gid, stat.S_IMODE(home.st_mode)) == (first.session.uid, first.session.gid, 0o700)
        ran = client.run("twice", ["sh", "-c", "id -u; id -g; id -un; echo $HOME; pwd"])
        uid = str(first.session.uid)
        assert ran.stdout.decode().split() == [uid, uid, "twice", "/sessions/twice", "/sessions/twice"]


def test_resume_says_what_may_be_there(client: Client) -> None:
    with pytest.raises(NotFound):
        client.session_ensure(name="resume", resume="existing")
    assert client.session_ensure(name="resume", resume="new").created
    with pytest.raises(AlreadyExists):
        client.session_ensure(name="resume", resume="new")
    assert not client.session_ensure(name="resume", resume="existing").created
    assert not client.session_ensure(name="resume", resume="auto").created
    client.session_delete(session="resume")
    with pytest.raises(NotFound):
        client.session_get(session="resume")


def test_sessions_have_uids_of_their_own(client: Client) -> None:
    with contextlib.ExitStack() as made:
        for number in range(5):
            made.enter_context(session_of(client, f"own-{number}"))
        uids = [each.uid for each in client.session_list().sessions]
        assert len(uids) == len(set(uids)) >= 5


def test_ensure_at_once_makes_one(daemon: Daemon, client: Client) -> None:
    created: list[bool] = []

    def ensure() -> None:
        with client_of(daemon) as each:
            created.append(each.session_ensure(name="at-once").created)

    threads = [threading.Thread(target=ensure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False] * 7 + [True]
    client.session_delete(session="at-once")


def test_delete_leaves_nothing(client: Client, daemon: Daemon) -> None:
    client.session_ensure(name="gone")
    client.run("gone", ["sh", "-c", "mkdir -p a/b; echo x > a/b/c; ln -s /etc etc; chmod 0 a/b"])
    freed = client.session_delete(session="gone").freed_bytes
    assert freed is not None
    assert not (daemon.state / "gone").exists()
    assert not record_of(daemon, "gone").exists()
    assert os.path.exists("/etc/passwd")


def test_delete_waits_for_running_commands(client: Client, daemon: Daemon) -> None:
    mark = fresh_mark()
    client.session_ensure(name="busy")
    client.start("busy", ["sh", "-c", f"setsid sleep {mark} & sleep {mark}"], attach=False)
    wait_until(lambda: len(living(mark)) >= 2, "the commands run")
    with pytest.raises(InvalidState):
        client.session_delete(session="busy")
    assert client.session_get(session="busy").session.processes == 1
    client.session_delete(session="busy", force=True)
    assert living(mark) == []
    assert not (daemon.state / "busy").exists()


def test_ephemeral_session_goes_with_its_link(client: Client, daemon: Daemon) -> None:
    mark = fresh_mark()
    with client_of(daemon) as short:
        short.session_ensure(name="fleeting", ephemeral=True)
        short.start("fleeting", ["sleep", mark], attach=False)
        wait_until(lambda: living(mark), "the command runs")
    wait_until(lambda: is_unknown(client, "fleeting"), "it goes")
    assert living(mark) == []
    assert not (daemon.state / "fleeting").exists()
    assert not record_of(daemon, "fleeting").exists()


# -- after a crash -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a daemon that is stopped; holds the session `kept` with a file in its home."""
    made = tmp_path_factory.mktemp("template") / "coworkd"
    with running_daemon(made) as daemon, client_of(daemon) as client:
        client.session_ensure(name="kept")
        assert client.run("kept", ["sh", "-c", "echo mine > file"]).exit == exited(0)
    return made


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of the template, owners and all."""
    subprocess.run(["cp", "-a", str(template), str(tmp_path / "coworkd")], check=True)
    return tmp_path / "coworkd"


@contextlib.contextmanager
def again(place: Path) -> Iterator[tuple[Client, Daemon]]:
    with running_daemon(place) as daemon, client_of(daemon) as client:
        yield client, daemon


def stopped(place: Path) -> Daemon:
    """The paths of a daemon that does not run."""
    return Daemon(None, place)  # type: ignore[arg-type]  # nothing but paths is asked of it


def owner(place: Path) -> int:
    return os.lstat(place / "state" / "kept").st_uid


def test_session_is_there_after_a_restart(place: Path) -> None:
    with again(place) as (client, _):
        assert client.session_get(session="kept").session.uid == owner(place)
        assert client.run("kept", ["cat", "file"]).stdout == b"mine\n"


def test_incomplete_session_is_finished_by_ensure(place: Path) -> None:
    change_record(stopped(place), "kept", state="incomplete")
    with again(place) as (client, _):
        with pytest.raises(InvalidState):
            client.run("kept", ["true"])
        assert client.session_ensure(name="kept").session.uid == owner(place)
        assert client.run("kept", ["cat", "file"]).stdout == b"mine\n"


def test_lost_record_is_recovered_from_the_home(place: Path) -> None:
    uid = owner(place)
    record_of(stopped(place), "kept").unlink()
    with again(place) as (client, _):
        client.session_ensure(name="another")
        assert client.session_ensure(name="kept").session.uid == uid
        assert client.run("kept", ["cat", "file"]).stdout == b"mine\n"


@pytest.mark.parametrize("damage", [b"", b"\xff{", b'{"format": 99}'])
def test_broken_record_is_set_aside(place: Path, damage: bytes) -> None:
    uid = owner(place)
    record_of(stopped(place), "kept").write_bytes(damage)
    with again(place) as (client, daemon):
        assert record_of(daemon, "kept").with_suffix(".json.broken").read_bytes() == damage
        assert client.session_ensure(name="kept").session.uid == uid
        assert client.run("kept", ["cat", "file"]).stdout == b"mine\n"


def test_deletion_that_was_cut_short_is_finished(place: Path) -> None:
    change_record(stopped(place), "kept", state="deleting")
    with again(place) as (client, daemon):
        wait_until(lambda: is_unknown(client, "kept"), "the deletion ends")
        assert not record_of(daemon, "kept").exists()
        assert not (daemon.state / "kept").exists()


# -- a uid below 1001, by any road ---------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [0, 33, 1000, -1, 2**32])
def test_record_with_a_foreign_uid_is_refused(place: Path, uid: int) -> None:
    change_record(stopped(place), "kept", uid=uid, gid=uid)
    with again(place) as (client, _):
        with pytest.raises(InvalidState, match="incomplete"):  # of the record nothing counts, and its home is there
            client.run("kept", ["true"])
        made = client.session_ensure(name="kept").session
        assert 1001 <= made.uid == owner(place) < 60_000
        assert client.run("kept", ["id", "-u"]).stdout == b"%d\n" % made.uid


@pytest.mark.parametrize("uid", [0, 33, 1000])
def test_home_of_a_foreign_uid_is_not_taken_for_its_own(place: Path, uid: int) -> None:
    record_of(stopped(place), "kept").unlink()
    os.chown(place / "state" / "kept", uid, uid)
    with again(place) as (client, _):
        made = client.session_ensure(name="kept").session
        assert made.uid >= 1001
        assert client.run("kept", ["id", "-u"]).stdout == b"%d\n" % made.uid


def test_home_that_is_a_link_is_refused(place: Path, shared: Path) -> None:
    record_of(stopped(place), "kept").unlink()
    home = place / "state" / "kept"
    shutil.rmtree(home)
    home.symlink_to(shared)
    before = os.stat(shared)
    with again(place) as (client, _), pytest.raises(CoworkError):
        client.session_ensure(name="kept")
    after = os.stat(shared)
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    assert (shared / "file").read_text() == "of the host\n"


_replies = msgspec.msgpack.Decoder(launch.Reply)


class Asked:
    """A launcher of our own, asked without a coworkd between."""

    def __init__(self, socket_path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(60)
        self._socket.connect(str(socket_path))

    def ask(self, request: launch.Request) -> launch.Reply:
        data, ancillary, _ = packet.pack(msgspec.msgpack.encode(request))
        self._socket.sendmsg(data, ancillary)
        message, fds = packet.unpack(*self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)[:3])
        assert fds == []
        reply: launch.Reply = _replies.decode(message)
        return reply

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    (tmp_path / "base").mkdir()
    bubblewrap = shutil.which("bwrap")
    assert bubblewrap is not None
    path = tmp_path / "launcher.sock"
    arguments = ["--socket", str(path), "--base", str(tmp_path / "base"), "--bubblewrap", bubblewrap, "--linger", "1"]
    with program(launcher_command(arguments), stdin=subprocess.DEVNULL) as child:
        wait_until(path.exists, "the launcher listens")
        made = Asked(path)
        yield made
        with contextlib.suppress(OSError):
            made.ask(launch.Quit(id=99))
        made.close()
        assert child.wait(60) == 0


def opening(uid: int, gid: int | None = None, session: str = "x") -> launch.OpenSession:
    return launch.OpenSession(
        id=1,
        session=session,
        uid=uid,
        gid=uid if gid is None else gid,
        tree=(),
        limits=CgroupLimits(memory_max_bytes=2**30, pids_max=100, cpu_max=1.0),
    )


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (33, 33), (1000, 1000), (1001, 0), (0, 1001), (-1, -1)])
def test_launcher_refuses_a_low_uid(asked: Asked, uid: int, gid: int) -> None:
    assert isinstance(asked.ask(opening(uid, gid)), launch.Refused)


@pytest.mark.parametrize("session", ["../x", "", "a/b", ".", "..", "a\0b"])
def test_launcher_refuses_a_name_that_is_a_path(asked: Asked, session: str) -> None:
    assert isinstance(asked.ask(opening(1001, session=session)), launch.Refused)


def test_launcher_takes_one_supervisor(asked: Asked, tmp_path: Path) -> None:
    assert isinstance(asked.ask(launch.Ping(id=1)), launch.Done)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second:
        second.settimeout(60)
        second.connect(str(tmp_path / "launcher.sock"))
        assert second.recv(10) == b""
    assert isinstance(asked.ask(launch.Ping(id=2)), launch.Done)


# -- folders -------------------------------------------------------------------------------------------------------


def test_ro_folder_can_be_read_only(client: Client, shared: Path) -> None:
    with session_of(client, "folders", folders=[folder(shared)]):
        script = (
            "cat mnt/f/file; echo x > mnt/f/file; touch mnt/f/new; rm -f mnt/f/file; mv mnt/f mnt/g; chmod 777 mnt/f"
        )
        ran = client.run("folders", ["sh", "-c", script])
        assert ran.stdout == b"of the host\n"
        assert ran.stderr.count(b"Read-only file system") >= 4
    assert sorted(os.listdir(shared)) == ["file"]
    assert (shared / "file").read_text() == "of the host\n"


def test_rwd_folder_can_be_written_and_emptied(client: Client, shared: Path) -> None:
    os.chown(shared, 4321, 4321)
    os.chown(shared / "file", 4321, 4321)
    with session_of(client, "folders", folders=[folder(shared, "rwd")]):
        script = "set -e; cd mnt/f; echo new > new; mkdir d; mv file d/moved; rm d/moved; id -u; stat -c %u . new"
        ran = client.run("folders", ["sh", "-c", script])
        assert (ran.exit, ran.stderr) == (exited(0), b"")
        assert len(set(ran.stdout.split())) == 1
    assert sorted(os.listdir(shared)) == ["d", "new"]
    assert (shared / "new").read_text() == "new\n"
    assert {os.stat(shared / name).st_uid for name in ("d", "new")} == {4321}


def test_folder_that_is_missing_fails_the_session(client: Client, daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(CoworkError) as failed:
        client.session_ensure(name="folderless", folders=[folder(tmp_path / "nowhere")])
    assert "nowhere" in failed.value.message
    assert not (daemon.state / "folderless").exists()
    assert not record_of(daemon, "folderless").exists()
    with pytest.raises(NotFound):
        client.session_get(session="folderless")


def test_optional_folder_that_is_missing_is_told(client: Client, shared: Path, tmp_path: Path) -> None:
    grants = [folder(shared), {**folder(tmp_path / "nowhere"), "name": "g", "required": False}]
    with session_of(client, "optional", folders=grants):
        (failed,) = client.session_ensure(name="optional").failed_folders
        assert failed.name == "g"
        assert "nowhere" in failed.error
        assert client.run("optional", ["ls", "mnt/f"]).stdout == b"file\n"


BAD_FOLDERS: list[tuple[dict[str, Any], type[CoworkError]]] = [
    (folder("/"), PolicyDenied),
    (folder("/proc"), PolicyDenied),
    (folder("/proc/sys"), PolicyDenied),
    (folder("/sys/kernel"), PolicyDenied),
    (folder("/dev"), PolicyDenied),
    (folder("/run"), PolicyDenied),
    (folder("relative"), InvalidParams),
    (folder("/tmp/../etc"), InvalidParams),
    (folder("/tmp/"), InvalidParams),
    (folder("/tmp//x"), InvalidParams),
    (folder("//tmp"), InvalidParams),
    (folder(""), InvalidParams),
    (folder("/tmp/a\0b"), InvalidParams),
    (folder("/tmp", "rw"), PolicyDenied),  # coworkd's own directories lie in it here
    ({**folder("/usr/bin/env", "staged"), "required": True}, InvalidState),
    (folder("/tmp", "wx"), InvalidParams),
    ({**folder("/tmp"), "name": "../x"}, InvalidParams),
    ({**folder("/tmp"), "name": ".."}, InvalidParams),
    ({**folder("/tmp"), "name": ""}, InvalidParams),
    ({**folder("/tmp"), "name": "a/b"}, InvalidParams),
    ({**folder("/tmp"), "required": 1}, InvalidParams),
]


@pytest.mark.parametrize(("grant", "error"), BAD_FOLDERS, ids=lambda value: str(value)[:60])
def test_folder_that_cannot_be_is_refused(
    client: Client, daemon: Daemon, grant: dict[str, Any], error: type[CoworkError]
) -> None:
    with pytest.raises(error):
        client.call("session.ensure", {"name": "no-folder", "folders": [grant]})
    assert not (daemon.state / "no-folder").exists()
    assert not record_of(daemon, "no-folder").exists()


@pytest.mark.parametrize("where", ["state", "state/.coworkd", "state/.coworkd/audit", "."])
def test_folder_of_coworkds_own_is_refused(client: Client, daemon: Daemon, where: str) -> None:
    with pytest.raises(PolicyDenied):
        client.session_ensure(name="no-folder", folders=[folder(os.path.normpath(daemon.state.parent / where))])


def test_folder_behind_a_link_is_refused(client: Client, daemon: Daemon, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shared)
    (shared / "sub").mkdir()
    for source in (tmp_path / "link", tmp_path / "link" / "sub"):
        with pytest.raises(CoworkError) as refused:
            client.session_ensure(name="no-folder", folders=[folder(source)])
        assert str(source) in refused.value.message
    assert not (daemon.state / "no-folder").exists()


def test_link_in_a_folder_leads_nowhere_outside(client: Client, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden")
    (shared / "out").symlink_to(tmp_path / "secret")
    (shared / "up").symlink_to("../secret")
    with session_of(client, "folders", folders=[folder(shared)]):
        ran = client.run("folders", ["sh", "-c", "cat mnt/f/out mnt/f/up"])
        assert ran.stdout == b""
        assert ran.exit != exited(0)


def test_listening_socket_below_a_folder_is_refused(client: Client, shared: Path) -> None:
    (shared / "deep").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(shared / "deep" / "s"))
        listener.listen()
        with pytest.raises(PolicyDenied) as refused:
            client.session_ensure(name="no-folder", folders=[folder(shared)])
    assert str(shared / "deep" / "s") in refused.value.message
