"""Sandboxes that wait where memory is counted: they take the limits of their command, and go when their session has none to spare."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coworkd.client.sync import Client
from coworkd.model.policy import LimitsRequest
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap", "cgroup2-controllers")
MIB = 1 << 20
EAT = "import sys; b = bytearray(int(sys.argv[1]) << 20); b[::4096] = b'x' * len(b[::4096]); print('had it')"


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


def warm(client: Client) -> dict[str, int]:
    return client.stats().warm


def make_wait(client: Client, session: str) -> None:
    before = warm(client)["waiting"]
    client.run(session, ["true"])
    wait_until(lambda: warm(client)["waiting"] > before, "a sandbox waits")


def test_a_command_that_was_handed_over_has_its_own_limits(client: Client) -> None:
    with session_of(client, "limits") as session:
        make_wait(client, session)
        taken = warm(client)["taken"]
        done = client.run(
            session, ["python3", "-c", EAT, "200"], limits=LimitsRequest(memory_max=96 * MIB), timeout_s=60
        )
        assert (done.exit.reason, done.stdout) == ("oom", b"")
        assert warm(client)["taken"] == taken + 1


def test_what_waits_goes_when_its_session_comes_up_against_its_limit(client: Client) -> None:
    with session_of(client, "tight", limits=LimitsRequest(memory_max=128 * MIB)) as session:
        with client.start(session, ["python3", "-c", f"input(); {EAT}", "124"], stdin=True) as eater:
            wait_until(lambda: warm(client)["waiting"], "a sandbox waits beside the command")
            dropped = warm(client)["dropped"]
            eater.write_stdin(b"\n")
            wait_until(lambda: warm(client)["dropped"] > dropped, "what waits was dropped")
            eater.wait()
        assert client.run(session, ["echo", "goes on"]).stdout == b"goes on\n"
