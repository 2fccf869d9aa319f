"""Limits that a kernel with every cgroup v2 controller keeps: memory, processes, processor time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.client.sync import Client
from coworkd.model.policy import LimitsRequest
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of

pytestmark = pytest.mark.needs("bubblewrap", "cgroup2-controllers")
MIB = 1 << 20
EAT = "b = bytearray(160 << 20); b[::4096] = b'x' * len(b[::4096]); print('had it all')"


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


def python(client: Client, session: str, code: str, **fields: Any) -> tuple[str, str, bytes]:
    """How a Python program in the session ended, by what reason and signal, and what it printed."""
    done = client.run(session, ["python3", "-c", code], timeout_s=60, **fields)
    return done.exit.reason, str(done.exit.signal), done.stdout


def test_no_controller_is_missing(client: Client) -> None:
    assert "cgroup" not in client.hello.degraded.get("launcher", "")


def test_more_memory_than_a_session_may_have_ends_the_command_and_says_so(client: Client) -> None:
    with session_of(client, "eats", limits=LimitsRequest(memory_max=96 * MIB)) as session:
        reason, signal, said = python(client, session, EAT)
        assert (reason, said) == ("oom", b"")
        assert signal == "KILL"


def test_memory_of_one_command_is_bounded_by_itself(client: Client) -> None:
    with session_of(client, "one") as session:
        assert python(client, session, EAT, limits=LimitsRequest(memory_max=96 * MIB))[0] == "oom"
        assert python(client, session, EAT) == ("exited", "None", b"had it all\n")


def test_oom_takes_the_whole_command_and_no_other(client: Client) -> None:
    with session_of(client, "beside") as session:
        other = client.start(session, ["sleep", "1000"])
        script = f'sleep 1000 & python3 -c "{EAT}"; echo went on'
        limits = LimitsRequest(memory_max=96 * MIB)
        done = client.run(session, ["sh", "-c", script], limits=limits, timeout_s=60)
        assert (done.exit.reason, done.stdout) == ("oom", b"")
        assert client.process_get(process=other.id).state == "running"


def test_processes_are_bounded(client: Client) -> None:
    with session_of(client, "forks", limits=LimitsRequest(pids_max=24)) as session:
        code = (
            "import os, time\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
            "        n += 1\nexcept OSError as error: print(n < 24, error.errno, flush=True)\nos._exit(0)"
        )
        assert python(client, session, code) == ("exited", "None", b"True 11\n")


def test_processor_time_is_bounded(client: Client) -> None:
    burn = "import time; start = time.monotonic()\nwhile time.process_time() < 1: pass\nprint(time.monotonic() - start > 2)"
    with session_of(client, "burns", limits=LimitsRequest(cpu_max=0.25)) as session:
        assert python(client, session, burn)[2] == b"True\n"
