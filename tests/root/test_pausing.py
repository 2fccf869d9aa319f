"""Sessions that stand still: a kernel with cgroup v2 is enough, controllers or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import Code, CoworkError
from coworkd.model.names import OsBytes
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import Exit
from coworkd.system.cgroup import find_root
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap", "cgroup2")
NOTE = OsBytes(b"note")


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


def group_of(process: Process) -> Path:
    """The cgroup of a command, as the kernel says."""
    root = find_root(Path("/proc/self/mountinfo").read_text())
    own = Path(f"/proc/{process.pid}/cgroup").read_text().split("0::/")[1].split("\n")[0]
    assert root is not None
    return Path(root) / own


def ended(process: Process) -> Exit:
    return process.wait(timeout_s=60).exit


def ticking(client: Client, session: str) -> Process:
    process = client.start(session, ["sh", "-c", "while :; do echo tick; sleep 0.02; done"])
    assert process.read(timeout_s=60) is not None
    return process


def end_of(client: Client, process: Process) -> int:
    return client.process_get(process=process.id).streams["stdout"][1]


def test_a_paused_session_stands_still_and_goes_on(client: Client) -> None:
    with session_of(client, "stops") as session, session_of(client, "runs") as beside:
        process, other = ticking(client, session), ticking(client, beside)
        assert client.session_pause(session=session).frozen
        before = end_of(client, process)
        others = end_of(client, other)
        time.sleep(0.3)
        assert end_of(client, process) == before
        wait_until(lambda: end_of(client, other) > others, "the other ticks on")
        assert client.session_get(session=session).session.paused
        with pytest.raises(CoworkError) as refused:
            client.run(session, ["true"])
        assert refused.value.code == Code.FAILED_PRECONDITION
        assert "session.resume" in refused.value.message
        # Who serves its files is no command.
        client.file_write(session=session, path=NOTE, data=b"x")
        assert client.file_read(session=session, path=NOTE).data == b"x"
        client.session_resume(session=session)
        wait_until(lambda: end_of(client, process) > before, "it ticks again")
        assert client.run(session, ["true"], timeout_s=60).exit.code == 0


def test_a_paused_command_is_killed_and_times_out(client: Client) -> None:
    with session_of(client, "ends") as session:
        process = ticking(client, session)
        timed = client.start(session, ["sleep", "1000"], timeout_s=1.0)
        client.session_pause(session=session)
        assert ended(timed).reason == "timeout"
        process.kill()
        assert ended(process).reason == "killed"
        client.session_delete(session=session, force=True)


def test_a_paused_session_is_deleted_with_what_runs_in_it(client: Client) -> None:
    with session_of(client, "goes") as session:
        process = ticking(client, session)
        client.session_pause(session=session)
        group = group_of(process)
        client.session_delete(session=session, force=True)
        assert not group.exists()


def test_paused_and_limited_outlive_coworkd(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "coworkd") as daemon, client_of(daemon) as client:
        client.session_ensure(name="stays")
        process = ticking(client, "stays")
        client.session_set_limits(session="stays", limits=LimitsRequest(pids_max=55))
        client.session_pause(session="stays")
        group = group_of(process)
        daemon.child.kill()
        daemon.child.wait()
    with running_daemon(tmp_path / "coworkd") as daemon, client_of(daemon) as client:
        assert client.session_get(session="stays").session.paused
        assert client.session_policy(session="stays").limits.pids_max == 55
        assert "frozen 1" in (group / "cgroup.events").read_text()
        client.session_resume(session="stays")
        wait_until(lambda: "frozen 0" in (group / "cgroup.events").read_text(), "it goes on")


def test_commands_that_wait_stand_still_too_and_are_there_afterwards(client: Client) -> None:
    with session_of(client, "waits") as session:
        for _ in range(3):
            assert client.run(session, ["true"], timeout_s=60).exit.code == 0
        client.session_pause(session=session)
        client.session_resume(session=session)
        for _ in range(3):
            assert client.run(session, ["true"], timeout_s=60).exit.code == 0


def test_a_session_that_was_paused_with_nothing_in_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "coworkd") as daemon, client_of(daemon) as client:
        client.session_ensure(name="empty")
        assert client.run("empty", ["true"], timeout_s=60).exit.code == 0
        client.session_pause(session="empty")
        daemon.child.kill()
        daemon.child.wait()
    with running_daemon(tmp_path / "coworkd") as daemon, client_of(daemon) as client:
        client.session_resume(session="empty")
        assert client.run("empty", ["true"], timeout_s=60).exit.code == 0


def test_what_a_paused_command_has_said_can_be_read(client: Client) -> None:
    with session_of(client, "says") as session:
        process = client.start(session, ["sh", "-c", "echo said; sleep 1000"], attach=False)
        wait_until(lambda: end_of(client, process) == 5, "it has said it")
        client.session_pause(session=session)
        assert client.attach(process.id).read(timeout_s=60) is not None
        client.session_resume(session=session)
