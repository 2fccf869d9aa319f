"""What a command needs is not to be had: descriptors, processes, a cgroup. Each is told, costs nobody else anything, and passes.

The limits are lowered on the running programs (prlimit(2), the kernel's own cgroup bounds), so what fails is the kernel's call.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, StartFailed
from tests.root.accounting import all_well_again, cgroup_root
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, exited, fresh_mark, living, session_of, when_steady

pytestmark = pytest.mark.needs("bubblewrap")
ROUNDS = 12
POOR_S = float(os.environ.get("COWORKD_POOR_S", "4"))
"""How long nothing can be opened: with 70 every watch of coworkd's has had its turn."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A coworkd of our own: others need what we take from it."""
    with running_daemon(tmp_path_factory.mktemp("poor")) as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, "poor") as name:
        yield name


@pytest.fixture(autouse=True)
def all_is_well_again(daemon: Daemon, client: Client, session: str) -> Iterator[None]:
    """Behind each test the next command runs, and nothing is left of those that could not."""
    with all_well_again(daemon, client, session):
        yield


def steady_descriptors(pid: int) -> list[int]:
    """Those that are open for good: what is open for a moment, to make what waits for the next command, would be room soon."""
    return [int(name) for name in when_steady(lambda: sorted(os.listdir(f"/proc/{pid}/fd")))]


@contextlib.contextmanager
def descriptors_of(pid: int, spare: int) -> Iterator[None]:
    """For the block, `pid` can open `spare` descriptors and no more."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = steady_descriptors(pid)
    free = [number for number in range(max(taken) + spare + 2) if number not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def outcomes(client: Client, session: str) -> set[str]:
    """What becomes of some commands of each kind: `ran`, or the code of the error."""
    seen = set()
    for number in range(ROUNDS):
        try:
            if number % 3 == 0:
                with client.start(session, ["cat"], tty=(24, 80)) as process:
                    process.kill(0)
                    process.wait(60)
            elif number % 3 == 1:
                with client.start(session, ["cat"], stdin=True) as process:
                    process.close_stdin()
                    assert process.wait(60).exit == exited(0)
            else:
                assert client.run(session, ["true"]).exit == exited(0)
            seen.add("ran")
        except CoworkError as error:
            seen.add(type(error).__name__)
    return seen


@pytest.mark.parametrize("spare", range(0, 30, 5))
def test_launcher_without_descriptors_refuses_and_goes_on(client: Client, session: str, spare: int) -> None:
    mark = fresh_mark()
    with client.start(session, ["sleep", mark]) as other:
        with descriptors_of(client.info().launcher_pid, spare):
            seen = outcomes(client, session)
            assert seen <= {"ran", "SandboxSetupFailed", "StartFailed", "LimitExceeded", "Unavailable"}, seen
            assert spare or "ran" not in seen
        assert living(mark)
        other.kill(0)
        assert other.wait(60).exit.reason == "killed"


@pytest.mark.parametrize("spare", range(0, 30, 5))
def test_coworkd_without_descriptors_refuses_and_goes_on(
    daemon: Daemon, client: Client, session: str, spare: int
) -> None:
    mark = fresh_mark()
    with client.start(session, ["sleep", mark]) as other:
        with descriptors_of(daemon.child.pid, spare):
            seen = outcomes(client, session)
            assert "InternalError" not in seen, seen
            assert client.ping().time > 0
        assert living(mark)
        other.kill(0)
        assert other.wait(60).exit.reason == "killed"


def test_coworkd_lives_long_without_descriptors(daemon: Daemon, client: Client, session: str) -> None:
    """All that it looks after by itself finds none for a while; a link that comes meanwhile is heard afterwards."""
    with contextlib.ExitStack() as stack:
        with descriptors_of(daemon.child.pid, 0):
            late = stack.enter_context(socket.socket(socket.AF_UNIX))
            late.connect(str(daemon.socket_path))
            until = time.monotonic() + POOR_S
            while time.monotonic() < until:
                assert client.ping().time > 0
                time.sleep(0.2)
            with pytest.raises(CoworkError):
                client.start(session, ["true"])
        assert daemon.child.poll() is None
        greeted = stack.enter_context(Client(late))
        greeted.greet("late")
        assert greeted.run(session, ["echo", "late"]).stdout == b"late\n"


@pytest.fixture
def bounded(daemon: Daemon) -> Iterator[Path]:
    """The launcher's cgroup."""
    root = cgroup_root(daemon)
    assert root is not None
    before = (root / "cgroup.max.descendants").read_text()
    yield root
    (root / "cgroup.max.descendants").write_text(before)


@pytest.mark.needs("cgroup2")
def test_command_whose_cgroup_is_refused_is_refused(client: Client, session: str, bounded: Path) -> None:
    with client.start(session, ["sleep", "1000"]) as other:
        (bounded / "cgroup.max.descendants").write_text("0")
        for _ in range(ROUNDS):
            with contextlib.suppress(StartFailed):
                client.run(session, ["true"])
        with pytest.raises(StartFailed) as caught:
            client.run(session, ["true"])
        assert caught.value.details["stage"] == "resources"
        assert client.process_get(process=other.id).state == "running"
        (bounded / "cgroup.max.descendants").write_text("max")


@pytest.mark.needs("cgroup2")
def test_session_whose_cgroup_is_refused_is_refused(client: Client, bounded: Path) -> None:
    (bounded / "cgroup.max.descendants").write_text("0")
    try:
        with pytest.raises(StartFailed) as caught:
            client.session_ensure(name="refused")
        assert caught.value.details["stage"] == "resources"
    finally:
        (bounded / "cgroup.max.descendants").write_text("max")
    with session_of(client, "refused") as name:
        assert client.run(name, ["true"]).exit == exited(0)
