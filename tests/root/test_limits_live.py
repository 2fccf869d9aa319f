"""Limits that change under running commands, and reasons of death: with a kernel that has every cgroup v2 controller."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import InvalidParams
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import Exit
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap", "cgroup2-controllers")
MIB = 1 << 20
EAT = "import sys; b = bytearray(160 << 20); b[::4096] = b'x' * len(b[::4096]); print('had it all', flush=True)"
HOLD = "b = bytearray({mib} << 20); b[::4096] = b'x' * len(b[::4096]); print('holds', flush=True); import time; time.sleep(1000)"
ROOT = Path("/sys/fs/cgroup")


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


def holding(client: Client, session: str, mib: int) -> Process:
    """A command that holds so much memory, and has said so."""
    process = client.start(session, ["python3", "-c", HOLD.format(mib=mib)])
    assert process.read(timeout_s=60) is not None
    return process


def group_of(process: Process) -> Path:
    """The cgroup of a command, as the kernel says."""
    return ROOT / Path(f"/proc/{process.pid}/cgroup").read_text().split("::/")[1].strip()


def ended(process: Process) -> Exit:
    return process.wait(timeout_s=60).exit


def test_a_command_dies_of_its_sessions_limit_and_says_so(client: Client) -> None:
    with session_of(client, "eats", limits=LimitsRequest(memory_max=96 * MIB)) as session:
        end = client.run(session, ["python3", "-c", EAT], timeout_s=60).exit
        assert (end.reason, end.scope, end.limit_bytes) == ("oom", "session", 96 * MIB)
        assert end.peak_bytes is not None
        assert 90 * MIB < end.peak_bytes <= 96 * MIB


def test_a_command_dies_of_its_own_limit_and_says_so(client: Client) -> None:
    with session_of(client, "own") as session:
        limits = LimitsRequest(memory_max=64 * MIB)
        end = client.run(session, ["python3", "-c", EAT], limits=limits, timeout_s=60).exit
        assert (end.reason, end.scope, end.limit_bytes) == ("oom", "process", 64 * MIB)


def test_a_sessions_limit_takes_the_largest_command_and_leaves_the_others(client: Client) -> None:
    with session_of(client, "both", limits=LimitsRequest(memory_max=128 * MIB)) as session:
        small = client.start(session, ["sleep", "1000"])
        assert client.run(session, ["python3", "-c", EAT], timeout_s=60).exit.scope == "session"
        assert client.process_get(process=small.id).state == "running"


def test_no_swap_is_used(client: Client) -> None:
    with session_of(client, "swaps") as session:
        process = client.start(session, ["sleep", "1000"])
        assert (group_of(process).parent.parent / "memory.swap.max").read_text() == "0\n"


def test_a_sessions_limits_change_under_its_commands(client: Client) -> None:
    with session_of(client, "live", limits=LimitsRequest(memory_max=96 * MIB)) as session:
        assert client.run(session, ["python3", "-c", EAT], timeout_s=60).exit.reason == "oom"
        waits = client.start(session, ["sleep", "1000"])
        done = client.session_set_limits(
            session=session, limits=LimitsRequest(memory_max=512 * MIB, pids_max=77, cpu_weight=42)
        )
        assert (done.limits["memory_max_bytes"], done.limits["pids_max"], done.warnings) == (512 * MIB, 77, ())
        above = group_of(waits).parent.parent
        assert [(above / name).read_text() for name in ("memory.max", "pids.max", "cpu.weight")] == [
            f"{512 * MIB}\n",
            "77\n",
            "42\n",
        ]
        assert client.run(session, ["python3", "-c", EAT], timeout_s=60).stdout == b"had it all\n"
        assert client.session_policy(session=session).limits.pids_max == 77


def test_what_policy_does_not_allow_is_told(client: Client) -> None:
    with session_of(client, "wants") as session:
        done = client.session_set_limits(session=session, limits=LimitsRequest(memory_max=1 << 50))
        assert any(sentence.startswith("limits.memory_max") for sentence in done.narrowed)
        with pytest.raises(InvalidParams):
            client.session_set_limits(session=session, limits=LimitsRequest(memory_max=-1))


def test_a_limit_below_use_ends_what_does_not_fit(client: Client) -> None:
    with session_of(client, "shrinks") as session:
        process = holding(client, session, 100)
        done = client.session_set_limits(session=session, limits=LimitsRequest(memory_max=48 * MIB))
        assert "bytes of memory are used" in done.warnings[0]
        end = ended(process)
        assert (end.reason, end.scope, end.limit_bytes) == ("oom", "session", 48 * MIB)
        assert client.run(session, ["true"], timeout_s=60).exit.code == 0


def test_a_commands_limits_change_while_it_runs(client: Client) -> None:
    with session_of(client, "one") as session:
        process, other = holding(client, session, 60), client.start(session, ["sleep", "1000"])
        done = client.process_set_limits(process=process.id, limits=LimitsRequest(pids_max=9, cpu_max=0.5))
        assert (done.limits["pids_max"], done.limits["cpu_max"]) == (9, 0.5)
        assert (group_of(process) / "pids.max").read_text() == "9\n"
        client.process_set_limits(process=process.id, limits=LimitsRequest(memory_max=32 * MIB))
        assert (ended(process).reason, ended(process).scope) == ("oom", "process")
        assert client.process_get(process=other.id).state == "running"


def test_a_fork_bomb_ends_with_its_session_and_harms_no_other(client: Client) -> None:
    with session_of(client, "bomb", limits=LimitsRequest(pids_max=64)) as bomb, session_of(client, "calm") as calm:
        code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
        process = client.start(bomb, ["python3", "-c", code])
        wait_until(lambda: client.process_get(process=process.id).usage.pids_refused, "it is refused")  # type: ignore[union-attr]
        assert client.run(calm, ["sh", "-c", "true & wait"], timeout_s=60).exit.code == 0
        assert client.ping().time > 0
        process.kill()
        assert ended(process).reason == "killed"


def test_usage_is_told(client: Client) -> None:
    with session_of(client, "uses") as session:
        process = holding(client, session, 40)
        usage = client.process_get(process=process.id).usage
        assert usage is not None
        assert (usage.memory_bytes or 0) > 40 * MIB
        assert (usage.cpu_user_s or 0) + (usage.cpu_system_s or 0) > 0
        assert usage.pids is not None
        [told] = client.session_usage(session=session).sessions
        assert told.group is not None
        assert (told.group.memory_bytes or 0) >= (usage.memory_bytes or 0)
        process.kill()
        ended(process)
        assert client.process_get(process=process.id).usage is None


def test_all_sessions_together_leave_the_guest_its_part(client: Client) -> None:
    with session_of(client, "any") as session:
        process = client.start(session, ["sleep", "1000"])
        cap = int((group_of(process).parent.parent.parent / "memory.max").read_text())
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert total // 2 <= cap <= total - 256 * MIB


def test_a_session_that_may_have_more_than_there_is_is_told(client: Client) -> None:
    with session_of(client, "large") as session:
        ensured = client.session_ensure(name=session)
        assert any("memory_max" in sentence and "guest" in sentence for sentence in ensured.narrowed)


def heard(client: Client, name: str, session: str, timeout_s: float = 40.0) -> dict[str, Any]:
    """The first event of that name about that session."""
    deadline = time.monotonic() + timeout_s
    events = client.events(after=0)
    try:
        while time.monotonic() < deadline:
            event = events.read(timeout_s=1.0)
            if event is not None and event.name == name and event.params.get("session") == session:
                return event.params
    finally:
        events.close()
    raise AssertionError(f"no {name} of {session} within {timeout_s:g} s")


def test_limits_that_were_reached_are_told(client: Client) -> None:
    with session_of(client, "many", limits=LimitsRequest(pids_max=24, memory_max=96 * MIB)) as session:
        assert client.run(session, ["python3", "-c", EAT], timeout_s=60).exit.reason == "oom"
        assert heard(client, "session.oom", session)["limit_bytes"] == 96 * MIB
        forks = "import os, time\nfor _ in range(99):\n    if os.fork() == 0: time.sleep(60)"
        ended = client.run(session, ["python3", "-c", forks], timeout_s=60)
        assert ended.exit.pids_refused
        assert heard(client, "session.limit", session)["limit"] == "pids_max"
