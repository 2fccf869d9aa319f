"""What a hostile command, or a kill at the worst moment, has once brought down: each of these did."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, NotFound, StartFailed
from coworkd.model.policy import LimitsRequest
from coworkd.system import cgroup
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import children_of, client_of, exited, fresh_mark, living, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap")

DEEP = "import os\nfor _ in range(3000):\n os.mkdir('d')\n os.chdir('d')"


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A coworkd whose standbys stay what they are: no warm sandbox is made of them."""
    place = tmp_path_factory.mktemp("cold")
    (place / "policies" / "profiles").mkdir(parents=True)
    (place / "policies" / "profiles" / "default.toml").write_text("[sandbox]\nwarm = 0\n")
    with running_daemon(place / "coworkd", "--policies", str(place / "policies")) as running:
        yield running


def standbys(client: Client) -> list[int]:
    """The launcher's children that wait."""
    return named(client, "coworkd-standby")


def named(client: Client, name: str) -> list[int]:
    """The launcher's children that call themselves so."""
    found = []
    for pid in children_of(client.info().launcher_pid or 0):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.append(pid)
    return found


def waiting(client: Client) -> list[int]:
    """The same, and bubblewrap around a shim that waits."""
    launcher = client.info().launcher_pid
    found = standbys(client)
    for pid in children_of(launcher):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # A standby that becomes such a one between the two looks counts once.
            if pid not in found and b"/proc/self/fd/8" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def is_dead(pid: int, *, or_stopped: bool = False) -> bool:
    """Whether it is gone, or waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("ZT" if or_stopped else "Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_home_of_any_depth_can_be_deleted(daemon: Daemon) -> None:
    with client_of(daemon) as client:
        with session_of(client, "deep") as session:
            assert client.run(session, ["python3", "-c", DEEP]).exit == exited(0)
        with pytest.raises(NotFound):
            client.session_get(session="deep")


def test_a_throw_away_session_of_any_depth_does_not_end_coworkd(daemon: Daemon) -> None:
    with client_of(daemon) as client:
        client.session_ensure(name="deep-away", ephemeral=True)
        assert client.run("deep-away", ["python3", "-c", DEEP]).exit == exited(0)
    with client_of(daemon) as client:
        wait_until(lambda: "deep-away" not in [each.name for each in client.session_list().sessions], "it is deleted")


def test_a_killed_standby_costs_no_command(daemon: Daemon) -> None:
    with client_of(daemon) as client, session_of(client, "standby") as session:
        killed = 0
        for _ in range(15):
            assert client.run(session, ["true"]).exit == exited(0)
            found: list[int] = []

            def some_wait(found: list[int] = found) -> bool:
                found[:] = waiting(client)
                return bool(found)

            wait_until(some_wait, "a child waits")
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                wait_until(lambda pid=pid: is_dead(pid), "the kill is done")  # type: ignore[misc]
        assert client.run(session, ["true"]).exit == exited(0)
    assert killed >= 15


def test_a_killed_forker_and_one_that_hangs_cost_no_command(daemon: Daemon) -> None:
    with client_of(daemon) as client, session_of(client, "forker") as session:

        def run(nofile: int) -> None:
            """One for which nothing fits that waits for another `nofile`."""
            assert client.run(session, ["true"], limits=LimitsRequest(nofile=nofile)).exit == exited(0)

        for nofile, number in enumerate((*[signal.SIGKILL] * 4, signal.SIGSTOP), 200):
            run(nofile)
            wait_until(lambda: waiting(client) and not standbys(client), "a sandbox waits, and no standby beside it")
            forker, *_ = named(client, "coworkd-forker")  # behind it what it has just forked, for a moment
            os.kill(forker, number)
            wait_until(lambda pid=forker: is_dead(pid, or_stopped=True), "the signal is there")  # type: ignore[misc]
            run(nofile + 100)


@pytest.mark.parametrize("which", ["daemon", "cold"])
def test_what_waits_shows_nothing_to_its_session(request: pytest.FixtureRequest, which: str) -> None:
    with client_of(request.getfixturevalue(which)) as client, session_of(client, "hidden") as session:
        client.run(session, ["true"])
        wait_until(lambda: standbys(client) if which == "cold" else waiting(client), "a child waits")
        seen = client.run(
            session, ["sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"]
        ).stdout
    assert b"coworkd" not in seen
    assert b"for p in" in seen


@pytest.mark.parametrize("after_s", [0.01, 0.02, 0.03])
def test_nothing_outlives_coworkd_and_its_launcher_killed_while_commands_start(tmp_path: Path, after_s: float) -> None:
    mark = fresh_mark()
    with running_daemon(tmp_path / "coworkd") as daemon:
        with client_of(daemon) as client:
            client.session_ensure(name="race")
            launcher = client.info().launcher_pid
            client.run("race", ["true"])

        def start_many() -> None:
            with contextlib.suppress(CoworkError), client_of(daemon) as own:
                while True:
                    own.start("race", ["sleep", mark], attach=False)

        threads = [threading.Thread(target=start_many) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: living(mark), "a command starts")
        time.sleep(after_s)  # not a wait for something: the moment of the kill
        os.kill(daemon.child.pid, signal.SIGKILL)
        os.kill(launcher, signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        root = cgroup.choose_own(f"coworkd-{os.stat(daemon.state / '.coworkd' / 'run').st_ino:x}")
    wait_until(lambda: not living(mark), "every sandbox ends")
    if root is not None:
        assert cgroup.remove(root, wait_s=5)


@pytest.mark.parametrize("tty", [None, (24, 80)])
def test_no_cwd_leads_out_through_what_bubblewrap_holds(daemon: Daemon, tty: tuple[int, int] | None) -> None:
    with client_of(daemon) as client, session_of(client, "way-out") as session:
        links = "for n in 0 1 2 3 4 5 6 7 8 9; do ln -s /proc/self/fd/$n s$n; ln -s /proc/1/task/1/fd/$n t$n; done"
        assert client.run(session, ["sh", "-c", links]).exit == exited(0)
        places = [f"/sessions/way-out/{kind}{number}" for kind in "st" for number in range(10)]
        for cwd in [*places, "/proc/self/fd/3", "/proc/1/fd/3", "/proc/thread-self/fd/3"]:
            with pytest.raises(StartFailed) as failed:
                client.start(session, ["ls", "-a"], cwd=cwd, tty=tty)
            assert failed.value.details["stage"] == "bad_cwd"


def test_the_proc_that_bubblewrap_starts_with_hides_others(cold: Daemon) -> None:
    """What would be seen by one who got at it all the same: the tree's own /proc, as the session's uid."""
    with client_of(cold) as client, session_of(client, "hides") as session:
        client.run(session, ["true"])

        def hides(pid: int) -> bool:
            mounts: list[str] = []
            with contextlib.suppress(OSError):  # it has ended meanwhile
                mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            return any(" /proc " in line and "hidepid=ptraceable" in line for line in mounts)

        # One that was just forked is still where the launcher is.
        wait_until(lambda: any(hides(pid) for pid in standbys(client)), "a child waits in the session's tree")
