"""What a thousand commands leave behind in coworkd, its launcher and the machine: nothing. And what the two programs load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.cli.launcher_start import launcher_command
from coworkd.client.sync import Client
from tests.root.accounting import cgroup_root, leaving_nothing
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, session_of, wait_until
from tests.soak.starts import run_many

REPO = Path(__file__).resolve().parents[2]
RUNS = 1000
WITHIN_S = 90

pytestmark = pytest.mark.needs("bubblewrap")


def accounts() -> tuple[str, str]:
    return Path("/etc/passwd").read_text(), Path("/etc/group").read_text()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, "leaks") as name:
        yield name


def test_a_thousand_runs_leave_nothing(daemon: Daemon, client: Client, session: str) -> None:
    run_many(daemon.uri, session, 60, within_s=WITHIN_S)
    users, stats, kept = accounts(), client.stats(), client.process_list().processes
    with leaving_nothing(daemon, client.info().launcher_pid):
        run_many(daemon.uri, session, RUNS, within_s=WITHIN_S)
    assert accounts() == users
    assert client.stats().spool_bytes == stats.spool_bytes
    assert client.stats().started_total - stats.started_total == RUNS * 9 // 10
    assert client.process_list().processes == kept


def test_launcher_that_ends_leaves_no_cgroup(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "coworkd") as daemon, client_of(daemon) as client:
        client.session_ensure(name="end")
        process = client.start("end", ["sleep", "30"], attach=False)
        own = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
        root = cgroup_root(daemon)
        launcher = client.info().launcher_pid
    assert own == []
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in (launcher, process.pid)), "both end")
    wait_until(lambda: root is None or not root.exists(), "its cgroup is removed")


# -- what is loaded ------------------------------------------------------------------------------------------------

HEAVY = ("pyroute2", "asyncio", "multiprocessing")


def loaded(argv: list[str]) -> set[str]:
    """Top-level names of the modules that a program has after its imports; `argv` ends with the code's own arguments."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True, cwd=REPO)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_coworkd_loads_nothing_heavy() -> None:
    told = "import coworkd.app, coworkd.cli.daemon, sys; print(*sys.modules)"
    modules = loaded([sys.executable, "-c", told])
    assert {"coworkd", "trio", "msgspec"} <= modules
    assert modules.isdisjoint(HEAVY)


def test_launcher_loads_nothing_heavy() -> None:
    command = launcher_command([])
    place = command.index("-c") + 1
    told = "import coworkd.launcher.server; print(*sys.modules)"
    command[place] = command[place].replace("sys.exit(main(sys.argv[2:]))", told)
    assert told in command[place]
    modules = loaded(command)
    assert {"coworkd", "msgspec"} <= modules
    assert modules.isdisjoint({*HEAVY, "trio", "ssl", "subprocess", "logging", "site"})
