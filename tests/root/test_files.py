"""`file.*` and `coworkctl cp` for real: with a session's rights, inside its view, whatever it has planted there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    Unavailable,
)
from coworkd.model.names import OsBytes
from coworkd.model.policy import LimitsRequest
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import children_of, client_of, links_of, session_of, took_at_most, wait_until
from tests.unit.archive.test_reader import member, tar_of

REPO = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
SESSION = "files"

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, SESSION) as name:
        yield name


def sh(client: Client, script: str, session: str = SESSION) -> str:
    done = client.run(session, ["sh", "-ec", script])
    assert done.exit.code == 0, done.stderr
    return done.stdout.decode(errors="surrogateescape").strip()


def read(client: Client, path: str | bytes, session: str = SESSION) -> bytes:
    return client.file_read(session=session, path=OsBytes(os.fsencode(path))).data


def write(client: Client, path: str, data: bytes, session: str = SESSION, **fields: object) -> int:
    return client.file_write(session=session, path=OsBytes(path.encode()), data=data, **fields).size  # type: ignore[arg-type]


def workers_of(client: Client) -> list[int]:
    """The workers of `file.*` that this coworkd has."""
    found = []
    for pid in children_of(client.info().launcher_pid or 0):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "coworkd-files":
                found.append(pid)
    return found


def status_of(pid: int) -> dict[str, str]:
    """Nothing of one that has gone meanwhile."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
    return {}


def worker_of(client: Client, session: str) -> int:
    """The session's: those of sessions that are over end when they like."""
    uid = str(client.session_get(session=session).session.uid)
    (found,) = (pid for pid in workers_of(client) if status_of(pid).get("Uid", "none").split()[0] == uid)
    return found


def rss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


# -- rights and view ----------------------------------------------------------------------------------------------


def test_what_is_written_is_the_sessions_own(client: Client) -> None:
    write(client, "mine", b"hello", mode=0o640)
    assert sh(client, "stat -c '%U %G %a' mine; cat mine") == "files files 640\nhello"
    sh(client, "echo theirs >theirs; chmod 600 theirs")
    assert read(client, "theirs") == b"theirs\n"
    assert read(client, f"/sessions/{SESSION}/theirs") == b"theirs\n"


def test_the_worker_is_the_sessions_user_without_a_right(client: Client, daemon: Daemon) -> None:
    read(client, "/etc/hostname")
    uid = client.session_get(session=SESSION).session.uid
    fields = status_of(worker_of(client, SESSION))
    assert {*fields["Uid"].split(), *fields["Gid"].split()} == {str(uid)}
    assert fields["Groups"].strip() == ""
    assert (fields["CapEff"], fields["CapPrm"], fields["CapBnd"], fields["NoNewPrivs"]) == (
        "0" * 16,
        "0" * 16,
        "0" * 16,
        "1",
    )


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/root/etc/shadow",
        "/proc/1/environ",
        "/proc/self/root/etc/passwd",
        "/proc/self/fd/0",
        "/proc/self/environ",
        "/proc/version",
        "/proc/self/maps",
        "/sys/kernel/vmcoreinfo",
        "/run/coworkd/coworkd.sock",
        "/sessions/.coworkd",
        "/root/.bashrc",
        "/etc/shadow",
        "/dev/zero",
        "/dev/tty",
    ],
)
def test_what_is_not_the_sessions_cannot_be_read_by_name_or_by_link(client: Client, path: str) -> None:
    name = f"to{path.replace('/', '-')}"
    sh(client, f"ln -sfn {path} '{name}'; ln -sfn {os.path.dirname(path)} '{name}.d'")
    for asked in (path, name, f"{name}.d/{os.path.basename(path)}", f"./../{SESSION}/{name}"):
        with pytest.raises((NotFound, PolicyDenied, InvalidState, Unavailable)):
            read(client, asked)
        with pytest.raises(CoworkError):
            client.download(SESSION, asked)


@pytest.mark.parametrize(
    "path", ["/proc/self/x", "/etc/x", "/usr/bin/x", "/x", "/sys/x", "/sessions/x", "mnt/x", "/dev/x"]
)
def test_nothing_is_made_where_the_session_could_not(client: Client, path: str) -> None:
    for attempt in (
        lambda: write(client, path, b"x"),
        lambda: client.file_mkdir(session=SESSION, path=OsBytes(path.encode())),
        lambda: client.upload(SESSION, path, b"x"),
        lambda: client.upload(SESSION, path, tar_of((member("f"), b"x")), tar=True),
    ):
        with pytest.raises((PolicyDenied, NotFound, InvalidState)):
            attempt()


def test_another_sessions_home_is_not_there(client: Client) -> None:
    with session_of(client, "other-files") as other:
        write(client, "secret", b"x", other)
        sh(client, "ln -sfn /sessions/other-files/secret theft; ln -sfn ../other-files theft.d")
        for path in ("/sessions/other-files/secret", "../other-files/secret", "theft", "theft.d/secret"):
            with pytest.raises(NotFound):
                read(client, path)
        assert [bytes(entry.path) for entry in client.file_list(session=SESSION, path=OsBytes(b"..")).entries] == [
            b"files"
        ]


def test_shared_memory_and_tmp_are_the_sessions(client: Client) -> None:
    for path in ("/dev/shm/a", "/tmp/a"):
        write(client, path, b"x")
        assert sh(client, f"cat {path}") == "x"


def test_names_of_any_bytes_but_nul(client: Client) -> None:
    name = b"new\nline \xff\xfe \x01'\""
    client.file_write(session=SESSION, path=OsBytes(name), data=b"odd")
    assert client.file_stat(session=SESSION, path=OsBytes(name)).stat.path == name
    assert client.file_read(session=SESSION, path=OsBytes(name)).data == b"odd"
    with pytest.raises(InvalidParams):
        client.file_read(session=SESSION, path=OsBytes(b"a\0b"))


def test_a_fifo_in_the_way_delays_nobody(client: Client) -> None:
    sh(client, "rm -rf f; mkdir f; mkfifo f/fifo")
    with took_at_most(8):
        for attempt in (
            lambda: read(client, "f/fifo"),
            lambda: write(client, "f/fifo", b"x"),
            lambda: write(client, "f/fifo", b"x", append=True),
            lambda: client.upload(SESSION, "f/fifo", b"x"),
            lambda: client.download(SESSION, "f/fifo"),
        ):
            with pytest.raises(CoworkError):
                attempt()


def test_set_id_bits_are_never_made(client: Client) -> None:
    with pytest.raises(InvalidParams):
        write(client, "s", b"x", mode=0o4755)
    client.upload(SESSION, "sd", tar_of((member("suid", mode=0o6755), b"x")), tar=True)
    assert sh(client, "stat -c %a sd/suid") == "755"


def test_links_of_an_archive_are_made_and_never_followed(client: Client) -> None:
    sh(client, "rm -rf target up; mkdir target up; echo kept >target/keep")
    evil = tar_of((member("l", type=tarfile.SYMTYPE, linkname="../target"), b""), (member("l/keep"), b"evil"))
    with pytest.raises(InvalidParams, match="symbolic link"):
        client.upload(SESSION, "up", evil, tar=True)
    assert sh(client, "cat target/keep; ls target") == "kept\nkeep"


# -- verbs --------------------------------------------------------------------------------------------------------


def test_verbs_tell_what_became_of_them(client: Client) -> None:
    with pytest.raises(NotFound):
        read(client, "none")
    write(client, "v/one", b"1", parents=True)
    with pytest.raises(AlreadyExists):
        write(client, "v/one", b"2", create="new")
    client.file_move(session=SESSION, path=OsBytes(b"v/one"), to=OsBytes(b"v/two"))
    assert client.file_remove(session=SESSION, path=OsBytes(b"v"), recursive=True).entries == 2
    with pytest.raises(InvalidState, match="different file systems"):
        client.file_move(session=SESSION, path=OsBytes(b"mine"), to=OsBytes(b"/tmp/mine"))


def test_a_list_of_very_many_is_whole_by_pages(client: Client) -> None:
    sh(client, "mkdir many; cd many; seq -f nowhere/%05g 1 12000 | xargs ln -s -t .")
    names: list[bytes] = []
    more = True
    while more:
        after = OsBytes(names[-1] if names else b"")
        page = client.file_list(session=SESSION, path=OsBytes(b"many"), after=after, limit=3000)
        names += [bytes(entry.path) for entry in page.entries]
        more = page.more
    assert names == [b"%05d" % number for number in range(1, 12_001)]


def test_every_change_is_in_the_audit_log(client: Client) -> None:
    write(client, "audited", b"x")
    client.upload(SESSION, "audited", b"xyz")
    with client.download(SESSION, "audited") as download:
        assert b"".join(download) == b"xyz"
    client.file_remove(session=SESSION, path=OsBytes(b"audited"))
    path = f"/sessions/{SESSION}/audited"

    def told() -> list[str]:
        records = client.audit_tail(limit=50, session=SESSION).records
        return [record["kind"] for record in records if record.get("path") == path]

    wanted = ["file.write", "file.upload", "file.upload_end", "file.download", "file.download_end", "file.remove"]
    wait_until(lambda: sorted(told()) == sorted(wanted), f"{wanted} are recorded")
    assert client.audit_verify().ok


def test_a_full_disk_is_told_and_leaves_nothing(client: Client) -> None:
    with session_of(client, "small-files", limits=LimitsRequest(tmp_max=2 * MIB)) as small:
        with pytest.raises(LimitExceeded):
            client.upload(small, "/tmp/big", [bytes(range(256)) * 4096] * 8)
        with pytest.raises(LimitExceeded):
            client.upload(small, "/tmp/big", b"x", size=8 * MIB)
        with pytest.raises(LimitExceeded, match="big"):
            client.upload(small, "/tmp/t", tar_of((member("a"), b"x"), (member("big"), os.urandom(4 * MIB))), tar=True)
        assert sh(client, "cd /tmp; ls -A | grep -v '^claude-'; ls -A t", small) == "t\na"
        assert write(client, "/tmp/fine", b"x", small) == 1


# -- streams ------------------------------------------------------------------------------------------------------


def test_ten_thousand_files_go_round_by_cp(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(10_000):
        path = tree / f"d{number // 100}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d " % number * (number % 40))
    (tree / "d0/link").symlink_to("/nowhere")
    os.chmod(tree / "d1/f100", 0o751)
    for words in (("cp", "-r", str(tree), f"{SESSION}:tree"), ("cp", "-r", f"{SESSION}:tree", str(tmp_path / "back"))):
        done = daemon.ctl(*words)
        assert done.returncode == 0, done.stderr
    assert sh(client, "find tree | wc -l") == str(10_000 + 100 + 1 + 1)
    same = subprocess.run(
        ["diff", "-r", "--no-dereference", tree, tmp_path / "back"], capture_output=True, check=False
    )  # fmt: skip
    assert (same.returncode, same.stdout) == (0, b"")
    seen, told = os.stat(tree / "d1/f100"), os.stat(tmp_path / "back/d1/f100")
    assert (seen.st_mode, seen.st_mtime_ns) == (told.st_mode, told.st_mtime_ns)


def test_cp_takes_one_file_each_way_and_pipes(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    (tmp_path / "a").write_bytes(data)
    assert daemon.ctl("cp", str(tmp_path / "a"), f"{SESSION}:cp-a").returncode == 0
    assert sh(client, "sha256sum cp-a").split()[0] == hashlib.sha256(data).hexdigest()
    assert daemon.ctl("cp", f"{SESSION}:cp-a", "-").stdout == data
    assert daemon.ctl("cp", "-", f"{SESSION}:cp-b", stdin=data).returncode == 0
    assert daemon.ctl("cp", f"{SESSION}:cp-b", str(tmp_path / "b")).returncode == 0
    assert (tmp_path / "b").read_bytes() == data


def test_a_host_that_vanishes_while_it_uploads_leaves_nothing(daemon: Daemon, client: Client) -> None:
    sh(client, "rm -rf half; mkdir half; echo old >half/a")
    for tar in (False, True):
        with client_of(daemon) as lost:
            stream, _ = lost._open_stream(
                "file.upload", {"session": SESSION, "path": "half" if tar else "half/a", "tar": tar, "mode": 0o644}
            )
            stream.send(tar_of((member("b"), os.urandom(MIB)))[: MIB // 2])
    wait_until(lambda: sh(client, "ls -A half; cat half/a") == "a\nold", "nothing of it is left")


def test_one_who_does_not_read_holds_up_nobody(daemon: Daemon, client: Client) -> None:
    sh(client, "truncate -s 1G stalled")
    with client_of(daemon) as lazy:
        stalled = [lazy.download(SESSION, "stalled") for _ in range(20)]
        with took_at_most(20):
            assert client.upload(SESSION, "quick", os.urandom(8 * MIB)) == 8 * MIB
            with client.download(SESSION, "quick") as download:
                assert sum(map(len, download)) == 8 * MIB
            assert lazy.file_read(session=SESSION, path=OsBytes(b"quick"), limit=10).size == 8 * MIB
        for each in stalled:
            each.close()


def test_a_gibibyte_each_way_leaves_memory_as_it_was(daemon: Daemon, client: Client) -> None:
    piece = bytes(range(256)) * 4096
    client.upload(SESSION, "warm", piece)
    watched = [daemon.child.pid, worker_of(client, SESSION)]
    before = {pid: rss_mib(pid) for pid in watched}
    highest = dict(before)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for pid in watched:
                highest[pid] = max(highest[pid], rss_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert client.upload(SESSION, "gib", (piece for _ in range(1024))) == 1024 * MIB
        digest = hashlib.sha256()
        with client.download(SESSION, "gib") as download:
            for data in download:
                digest.update(data)
    finally:
        over.set()
        watcher.join()
    whole = hashlib.sha256()
    for _ in range(1024):
        whole.update(piece)
    assert digest.hexdigest() == whole.hexdigest()
    grown = {pid: highest[pid] - before[pid] for pid in watched}
    assert max(grown.values()) < 32, grown
    client.file_remove(session=SESSION, path=OsBytes(b"gib"))


# -- workers ------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_and_its_transfers_told(daemon: Daemon, client: Client) -> None:
    with session_of(client, "killed-files") as name:
        before = set(workers_of(client))
        write(client, "a", b"old", name)
        (worker,) = set(workers_of(client)) - before
        stream, _ = client._open_stream("file.upload", {"session": name, "path": "a", "tar": False, "mode": 0o644})
        stream.send(b"new")
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(Unavailable, match="ended before the transfer"):
            stream.receive()
        stream.close()
        assert read(client, "a", name) == b"old"
        assert sh(client, "ls -A", name) == "a\nmnt"


def test_a_session_that_goes_takes_its_worker_and_transfers_along(daemon: Daemon, client: Client) -> None:
    before = set(workers_of(client))
    with session_of(client, "gone-files") as name:
        sh(client, "truncate -s 1G a", name)
        download = client.download(name, "a")
        (worker,) = set(workers_of(client)) - before
        client.session_delete(session=name, force=True)
        with pytest.raises(Unavailable):
            for _ in download:
                pass
        wait_until(lambda: not os.path.exists(f"/proc/{worker}"), "the worker is gone")
        download.close()
    client.session_ensure(name="gone-files")
    assert [bytes(e.path) for e in client.file_list(session="gone-files", path=OsBytes(b".")).entries] == [b"mnt"]
    client.session_delete(session="gone-files")


@pytest.mark.parametrize("tar", [False, True])
def test_a_coworkd_that_is_killed_leaves_nothing_of_an_upload(tmp_path: Path, tar: bool) -> None:
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        client.file_mkdir(session="work", path=OsBytes(b"half"))
        path = "half" if tar else "half/a"
        stream, _ = client._open_stream("file.upload", {"session": "work", "path": path, "tar": tar, "mode": 0o644})
        stream.send(tar_of((member("b"), os.urandom(MIB)))[: MIB // 2])
        (worker,) = workers_of(client)
        wait_until(lambda: client.egress_status().pid, "there is a coworkd-egress")
        others = (client.info().launcher_pid, client.egress_status().pid)
        assert all(others)
        daemon.child.kill()
        daemon.child.wait()
        wait_until(lambda: not os.path.exists(f"/proc/{worker}"), "the worker has ended")
        (home,) = daemon.state.glob("**/work/half")
        assert os.listdir(home) == []
        for other in others:  # they would wait for the next coworkd
            os.kill(other, signal.SIGTERM)
            wait_until(lambda pid=other: not os.path.exists(f"/proc/{pid}"), "it has ended")  # type: ignore[misc]


def test_no_worker_outlives_coworkd(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        write(client, "a", b"x", "work")
        (worker,) = workers_of(client)
    assert not os.path.exists(f"/proc/{worker}")


# -- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the user's, whom the session is not."""
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "theirs").write_bytes(b"theirs")
    for path in (directory, directory / "theirs"):
        os.chown(path, 1000, 1000)
    return directory


def folder(source: Path, mode: str) -> FolderGrant:
    return FolderGrant(name="shared", source=str(source), mode=mode)  # type: ignore[arg-type]


@pytest.mark.needs("fuse")
def test_a_folder_without_deletes_takes_files_and_keeps_the_users(client: Client, shared: Path) -> None:
    with session_of(client, "rw-files", folders=[folder(shared, "rw")]) as name:
        write(client, "mnt/shared/ours", b"1", name)
        client.upload(name, "mnt/shared/theirs", b"changed")
        client.upload(name, "mnt/shared/tree", tar_of((member("d/f"), b"x")), tar=True)
        assert sorted(os.listdir(shared)) == ["ours", "theirs", "tree"]
        assert (shared / "theirs").read_bytes() == b"changed"
        assert os.stat(shared / "tree/d/f").st_uid == 1000
        (shared / "tree/d/kept").write_bytes(b"the user's")
        os.chown(shared / "tree/d/kept", 1000, 1000)
        with pytest.raises(PolicyDenied) as caught:
            client.file_remove(session=name, path=OsBytes(b"mnt/shared/tree"), recursive=True)
        assert caught.value.details["errno"] == errno.EPERM
        assert caught.value.details["path"] == f"/sessions/{name}/mnt/shared/tree/d/kept"
        assert (shared / "tree/d/kept").exists()


def test_a_read_only_folder_is_read_and_nothing_else(client: Client, shared: Path) -> None:
    with session_of(client, "ro-files", folders=[folder(shared, "ro")]) as name:
        assert read(client, "mnt/shared/theirs", name) == b"theirs"
        for attempt in (
            lambda: write(client, "mnt/shared/theirs", b"x", name),
            lambda: client.upload(name, "mnt/shared/new", b"x"),
            lambda: client.file_remove(session=name, path=OsBytes(b"mnt/shared/theirs")),
        ):
            with pytest.raises(PolicyDenied):
                attempt()


def test_a_folder_that_is_one_file_is_written_in_place(client: Client, shared: Path) -> None:
    with session_of(client, "one-file", folders=[folder(shared / "theirs", "rwd")]) as name:
        inode = os.stat(shared / "theirs").st_ino
        answer = client.file_write(session=name, path=OsBytes(b"mnt/shared"), data=b"new")
        assert answer.atomic is False
        assert (shared / "theirs").read_bytes() == b"new"
        assert client.upload(name, "mnt/shared", b"newer") == 5
        assert (shared / "theirs").read_bytes() == b"newer"
        assert os.stat(shared / "theirs").st_ino == inode


@pytest.mark.needs("overlay")
def test_a_staged_folder_takes_what_any_other_does_and_the_source_stays(client: Client, shared: Path) -> None:
    with session_of(client, "staged-files", folders=[folder(shared, "staged")]) as name:
        write(client, "mnt/shared/theirs", b"changed", name)
        client.upload(name, "mnt/shared/new", b"1")
        client.upload(name, "mnt/shared/new", b"22")
        client.upload(name, "mnt/shared/tree", tar_of((member("d/f"), b"x")), tar=True)
        client.file_move(session=name, path=OsBytes(b"mnt/shared/new"), to=OsBytes(b"mnt/shared/moved"))
        assert client.file_remove(session=name, path=OsBytes(b"mnt/shared/tree"), recursive=True).entries == 3
        assert sh(client, "cd mnt/shared; ls -A; cat theirs moved", name) == "moved\ntheirs\nchanged22"
        assert os.listdir(shared) == ["theirs"]
        assert (shared / "theirs").read_bytes() == b"theirs"


def test_a_removal_does_not_go_into_a_folder(client: Client, shared: Path) -> None:
    with session_of(client, "removed-files", folders=[folder(shared, "rwd")]) as name:
        with pytest.raises(InvalidState, match="mounted there"):
            client.file_remove(session=name, path=OsBytes(b"mnt"), recursive=True)
        assert (shared / "theirs").read_bytes() == b"theirs"


@pytest.mark.needs("fuse")
def test_a_folder_that_hangs_fails_its_own_calls_only(daemon: Daemon, client: Client, shared: Path) -> None:
    before = children_of(client.info().launcher_pid or 0)
    with session_of(client, "hung-files", folders=[folder(shared, "rw")]) as name:
        assert read(client, "mnt/shared/theirs", name) == b"theirs"
        server = _server_of(client, before)
        os.kill(server, signal.SIGSTOP)
        try:
            began = time.monotonic()
            told: list[CoworkError] = []

            def ask() -> None:
                with client_of(daemon) as own:
                    try:
                        own.file_list(session=name, path=OsBytes(b"mnt/shared"))
                    except CoworkError as error:
                        told.append(error)

            asking = threading.Thread(target=ask)
            asking.start()
            with took_at_most(5):
                assert write(client, "other", b"x") == 1
                assert write(client, "home", b"x", name) == 1
            asking.join(60)
            assert isinstance(told[0], Unavailable)
            assert 5 < time.monotonic() - began < 50
        finally:
            os.kill(server, signal.SIGCONT)
        assert read(client, "mnt/shared/theirs", name) == b"theirs"


def _server_of(client: Client, before: list[int]) -> int:
    """The process that serves the guarded folder that was not there `before`."""
    (found,) = (
        pid
        for pid in children_of(client.info().launcher_pid or 0)
        if pid not in before and any(link == "/dev/fuse" for link in links_of(pid))
    )
    return found


def test_archives_of_others_are_taken_and_ours_are_read_by_others(client: Client) -> None:
    sh(client, "rm -rf o; mkdir -p o/in; echo x >o/in/f; ln -s f o/in/l")
    with client.download(SESSION, "o/in", tar=True) as download:
        data = b"".join(download)
    listed = subprocess.run(["tar", "-tvf", "-"], input=data, capture_output=True, check=True).stdout
    assert b"./f" in listed or b" f\n" in listed
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [".", "f", "l"]


def test_no_socket_is_taken_for_a_file(client: Client) -> None:
    script = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('sk'); s.close()"
    done = client.run(SESSION, ["python3", "-c", script])
    assert done.exit.code == 0
    with pytest.raises(CoworkError):
        read(client, "sk")
    assert client.file_stat(session=SESSION, path=OsBytes(b"sk")).stat.kind == "socket"
    assert isinstance(socket.AF_UNIX, int)
