"""Commands that turn against their own sandbox: each is told to have ended as it did, leaves nothing, and the next one runs.

A home that is filled is `test_quota`'s: here nothing bounds it but the disk of the machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import Exit
from tests.root.accounting import IDLE_THREADS, Books, cgroup_root
from tests.root.conftest import Daemon
from tests.root.hostile import HOSTILE, Hostile, program
from tests.root.live import client_of, fresh_mark, living, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap", "python3")
KILLED = Exit(code=None, signal="KILL", reason="killed")
END_S = 60
LIMITS = LimitsRequest(pids_max=200, tmp_max=16 << 20)


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, "hostile", limits=LIMITS) as name, session_of(client, "beside"):
        for each in (name, "beside"):
            client.run(each, ["true"])
            with client.start(each, ["true"], tty=(24, 80)) as process:
                process.wait(END_S)
        yield name


@pytest.fixture(scope="module")
def books(daemon: Daemon, client: Client, session: str) -> tuple[Books, dict[str, int]]:
    """The accounts, and what stood in them before any of these commands."""
    made = Books(daemon.child.pid, client.info().launcher_pid, cgroup_root(daemon))
    return made, made.look_when_steady()


@pytest.fixture(autouse=True)
def nothing_is_left(books: tuple[Books, dict[str, int]], client: Client, session: str) -> Iterator[None]:
    """After each: nothing that was not there before, and both its session and another go on."""
    yield
    for each in (session, "beside"):
        assert client.run(each, ["echo", "next"]).stdout == b"next\n"
    books[0].assert_settles(books[1], passing_over=IDLE_THREADS)


def read_until_ready(process: Process) -> bytes:
    said = b""
    while b"ready\n" not in said:
        piece = process.read(timeout_s=END_S)
        assert piece is not None, said
        said += piece.data.replace(b"\r", b"")
    return said


@pytest.mark.parametrize("tty", [None, (24, 80)], ids=["pipes", "terminal"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=[each.name for each in HOSTILE])
def test_hostile_command_ends_as_it_did_and_leaves_nothing(
    client: Client, session: str, hostile: Hostile, tty: tuple[int, int] | None
) -> None:
    mark = fresh_mark()
    with client.start(session, program(hostile, mark), tty=tty) as process:
        said = read_until_ready(process)
        assert hostile.says in said, said
        if hostile.ends is None:
            assert client.run("beside", ["echo", "meanwhile"]).stdout == b"meanwhile\n"
            process.kill(0)
        ended = process.wait(END_S)
        assert ended.exit == (hostile.ends or KILLED), said
        assert living(mark) == []


@pytest.mark.needs("cgroup2")
@pytest.mark.parametrize("grace_s", [0, 0.1])
def test_frozen_command_is_killed(daemon: Daemon, client: Client, session: str, grace_s: float) -> None:
    mark = fresh_mark()
    with client.start(session, ["sh", "-c", f"echo ready; sleep {mark} & sleep {mark}"]) as process:
        read_until_ready(process)
        wait_until(lambda: len(living(f"sleep\0{mark}")) == 2, "both sleep")
        freeze_cgroup_of(daemon, process.pid)
        process.kill(grace_s)
        # A TERM that waited behind the frost may be what it dies of.
        assert process.wait(END_S).exit.reason == "killed"
        assert living(mark) == []


def processes_of(cgroup: Path) -> list[str]:
    """None where it was removed meanwhile."""
    with contextlib.suppress(OSError):
        return (cgroup / "cgroup.procs").read_text().split()
    return []


def freeze_cgroup_of(daemon: Daemon, pid: int) -> None:
    """The cgroup below our launcher's that the process is in."""
    root = cgroup_root(daemon)
    assert root is not None
    found = next(Path(place) for place, _, _ in os.walk(root) if str(pid) in processes_of(Path(place)))
    (found / "cgroup.freeze").write_text("1")
    wait_until(lambda: "frozen 1" in (found / "cgroup.events").read_text(), "it is frozen")
