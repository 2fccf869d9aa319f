"""Limits that each process of a command has of its own: no cgroup is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coworkd.client.sync import Client
from coworkd.model.policy import LimitsRequest
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of

pytestmark = pytest.mark.needs("bubblewrap")
LIMITS = ["sh", "-c", "ulimit -f; ulimit -t; ulimit -c; ulimit -n"]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


def test_without_a_word_of_it_only_core_dumps_are_held_back(client: Client) -> None:
    with session_of(client, "plain") as session:
        assert client.run(session, LIMITS).stdout.split()[:3] == [b"unlimited", b"unlimited", b"0"]


def test_a_command_gets_what_it_was_asked_to(client: Client) -> None:
    asked = LimitsRequest(fsize_max=8192, cpu_time_s=7, nofile=99)
    with session_of(client, "asks") as session:
        assert client.run(session, LIMITS, limits=asked).stdout.split() == [b"16", b"7", b"0", b"99"]


def test_a_file_grows_to_its_limit_and_no_further(client: Client) -> None:
    with session_of(client, "writes", limits=LimitsRequest(fsize_max=8192)) as session:
        script = "head -c 20000 /dev/zero >file; stat -c %s file"
        assert client.run(session, ["sh", "-c", script]).stdout == b"8192\n"


def test_processor_time_ends(client: Client) -> None:
    with session_of(client, "burns", limits=LimitsRequest(cpu_time_s=1)) as session:
        end = client.run(session, ["sh", "-c", "while :; do :; done"], timeout_s=60).exit
        assert (end.reason, end.signal) == ("signaled", "KILL")  # the soft limit is the hard one
        # A command may have less than its session, and never more.
        told = client.start(session, ["true"], limits=LimitsRequest(cpu_time_s=0)).narrowed
        assert any("cpu_time_s" in sentence for sentence in told)
