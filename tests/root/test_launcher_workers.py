"""Workers of the launcher, for real: the rights of each kind, and their ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.launcher.worker import RIGHTS
from coworkd.launcher.workers import MOUNT_LIMIT, WORKER_LIMIT
from coworkd.model import launch
from tests.root.launcher_talk import UID, Started, Talk, open_launcher, session_request, spawn_request
from tests.root.live import children_of, program, wait_until

pytestmark = pytest.mark.needs("root", "userns", "netns", "bubblewrap")
PRIVATE = ("unshare", "--mount", "--propagation", "private", "--")
ROOT_KINDS: tuple[launch.WorkerKind, ...] = ("stage", "measure", "watch", "disk")


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    tmp_path.chmod(0o755)
    with open_launcher(tmp_path, below=PRIVATE) as started:
        yield started


@pytest.fixture
def talk(launcher: Started) -> Talk:
    talk = launcher.ready()
    assert isinstance(talk.ask(session_request(launcher.directory / "home")), launch.Opened)
    talk.drop_fds()
    return talk


def start(talk: Talk, kind: launch.WorkerKind, session: str | None = None) -> launch.WorkerStarted:
    answer = talk.ask(launch.StartWorker(id=0, kind=kind, session=session))
    assert isinstance(answer, launch.WorkerStarted), answer
    return answer


def refused(talk: Talk, request: launch.Request) -> launch.Refused:
    answer = talk.ask(request)
    assert isinstance(answer, launch.Refused), answer
    return answer


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def fds_of(pid: int) -> dict[int, str]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


@pytest.mark.parametrize("kind", ROOT_KINDS)
def test_a_worker_of_root_has_the_rights_of_its_kind(launcher: Started, talk: Talk, kind: launch.WorkerKind) -> None:
    worker = start(talk, kind)
    assert len(talk.fds) == 1
    status = status_of(worker.pid)
    rights = RIGHTS[kind]
    if rights is not None:
        wanted = f"{sum(1 << each for each in rights):016x}"
        assert (status["CapPrm"], status["CapEff"], status["CapBnd"]) == (wanted, wanted, "0" * 16)
    assert (status["CapInh"] if rights is not None else "", status["NoNewPrivs"]) in (("0" * 16, "1"), ("", "1"))
    assert (status["Uid"].split(), status["Name"]) == (["0"] * 4, f"coworkd-{kind}"[:15])
    assert os.readlink(f"/proc/{worker.pid}/ns/mnt") == os.readlink(f"/proc/{launcher.child.pid}/ns/mnt")


def test_a_files_worker_is_its_session(talk: Talk) -> None:
    worker = start(talk, "files", "bob")
    status = status_of(worker.pid)
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert {status[f"Cap{each}"] for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["Groups"], status["NoNewPrivs"]) == ("", "1")
    assert os.readlink(f"/proc/{worker.pid}/cwd") == "/sessions/bob"
    assert sorted(os.listdir(f"/proc/{worker.pid}/root/sessions")) == ["bob"]
    assert not os.path.exists(f"/proc/{worker.pid}/root{Path(__file__).resolve()}")
    assert os.stat(f"/proc/{worker.pid}/fd").st_uid == 0  # it cannot be traced by its own uid


def test_a_worker_holds_nothing_of_the_launchers(launcher: Started, talk: Talk) -> None:
    spawned = talk.start(spawn_request(["sleep", "60"]))
    pipes = {os.readlink(f"/proc/self/fd/{fd}") for fd in talk.fds[-len(spawned.fds) :]}
    worker = start(talk, "measure")
    assert not pipes & set(fds_of(worker.pid).values())
    assert {fd for fd, what in fds_of(worker.pid).items() if fd > 2 and not what.startswith("socket:")} == set()


def test_a_worker_ends_with_its_socket(talk: Talk) -> None:
    worker = start(talk, "measure")
    talk.drop_fds()
    wait_until(lambda: gone(worker.pid), "it reads the end of its socket")


def test_a_workers_end_is_the_end_of_its_socket(talk: Talk) -> None:
    worker = start(talk, "measure")
    assert isinstance(talk.ask(launch.KillWorker(id=0, worker=worker.worker)), launch.Done)
    with socket.socket(fileno=talk.fds.pop()) as ours:
        ours.settimeout(60)
        assert ours.recv(10) == b""
    wait_until(lambda: gone(worker.pid), "it is reaped")
    assert isinstance(talk.ask(launch.KillWorker(id=0, worker=worker.worker)), launch.Done)


def test_a_files_worker_ends_with_its_session(talk: Talk) -> None:
    worker = start(talk, "files", "bob")
    assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
    wait_until(lambda: gone(worker.pid), "it is gone")


def test_workers_end_with_the_launcher_however_it_ends(launcher: Started, talk: Talk) -> None:
    worker = start(talk, "disk")
    (pid,) = children_of(launcher.child.pid)
    os.kill(worker.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    launcher.child.wait(60)
    assert gone(worker.pid)


def test_workers_outlive_no_supervisor(launcher: Started, talk: Talk) -> None:
    worker = start(talk, "measure")
    talk.close()
    wait_until(lambda: gone(worker.pid), "its socket has ended")
    assert isinstance(launcher.ready().ask(launch.Ping(id=0)), launch.Done)


def test_the_next_supervisor_finds_nobody_at_work_for_the_one_before(launcher: Started, talk: Talk) -> None:
    worker, repair = start(talk, "stage"), start(talk, "disk")
    for pid in (worker.pid, repair.pid):
        os.kill(pid, signal.SIGSTOP)  # it does not read the end of its socket
    talk.close()
    launcher.ready()
    wait_until(lambda: gone(worker.pid), "it was killed")
    assert not gone(repair.pid)


def test_what_is_no_worker_is_refused(talk: Talk) -> None:
    assert refused(talk, launch.StartWorker(id=0, kind="files")).errno == errno.EINVAL
    assert refused(talk, launch.StartWorker(id=0, kind="disk", session="bob")).errno == errno.EINVAL
    assert refused(talk, launch.StartWorker(id=0, kind="files", session="eve")).stage == "session"


def test_workers_are_bounded(talk: Talk) -> None:
    for _ in range(WORKER_LIMIT):
        start(talk, "measure")
    assert refused(talk, launch.StartWorker(id=0, kind="measure")).errno == errno.EMFILE
    talk.drop_fds()
    wait_until(lambda: isinstance(talk.ask(launch.StartWorker(id=0, kind="measure")), launch.WorkerStarted), "room")


def enter(launcher: Started, *argv: str) -> list[str]:
    return ["nsenter", "--target", str(launcher.child.pid), "--mount", "--", *argv]


def test_a_mount_that_is_the_launchers_goes_with_it(launcher: Started, talk: Talk, tmp_path: Path) -> None:
    for name in ("mine", "another"):
        (tmp_path / name).mkdir()
        subprocess.run(enter(launcher, "mount", "-t", "tmpfs", "none", str(tmp_path / name)), check=True)
        assert isinstance(talk.ask(launch.OwnMount(id=0, path=bytes(tmp_path / name), owned=True)), launch.Done)
    assert isinstance(talk.ask(launch.OwnMount(id=0, path=bytes(tmp_path / "another"), owned=False)), launch.Done)
    with program(enter(launcher, "sleep", "1000")) as witness:
        wait_until(lambda: str(tmp_path / "mine") in mounts_of(witness.pid), "the witness is inside")
        assert isinstance(talk.ask(launch.Quit(id=0)), launch.Done)
        launcher.child.wait(60)
        assert (
            str(tmp_path / "mine") in mounts_of(witness.pid),
            str(tmp_path / "another") in mounts_of(witness.pid),
        ) == (
            False,
            True,
        )


def test_owned_mounts_are_bounded_and_absolute(talk: Talk) -> None:
    assert refused(talk, launch.OwnMount(id=0, path=b"relative", owned=True)).errno == errno.EINVAL
    for number in range(MOUNT_LIMIT):
        assert isinstance(talk.ask(launch.OwnMount(id=0, path=b"/nowhere/%d" % number, owned=True)), launch.Done)
    assert refused(talk, launch.OwnMount(id=0, path=b"/nowhere/more", owned=True)).errno == errno.EMFILE


def mounts_of(pid: int) -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text()
