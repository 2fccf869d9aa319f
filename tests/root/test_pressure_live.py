"""Pressure in a session: the kernel's triggers reach the service, and it tells."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from coworkd.client.sync import Subscription
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of

pytestmark = pytest.mark.needs("bubblewrap", "cgroup2", "psi")
PATIENCE_S = 60.0


def test_pressure_in_a_session_is_told_and_its_end(daemon: Daemon) -> None:
    with (
        client_of(daemon) as client,
        session_of(client, "slow") as session,
        contextlib.closing(client.events()) as events,
    ):
        crowd = [["sh", "-c", "while :; do :; done"]] * (2 * (os.cpu_count() or 1))
        burners = [client.start(session, argv, attach=False) for argv in crowd]
        assert level_of(events, session, "some", "full") in ("some", "full")
        for burner in burners:
            burner.kill(grace_s=0)
        assert level_of(events, session, "none") == "none"


def test_the_launcher_keeps_the_triggers_of_a_session(daemon: Daemon) -> None:
    """So that the end of a killed coworkd does not wait for the kernel to end each."""
    with client_of(daemon) as client, session_of(client, "kept") as session:
        client.run(session, ["true"])
        pid = client.info().launcher_pid
        end = time.monotonic() + PATIENCE_S
        while pressure_files(pid) != {"memory.pressure", "cpu.pressure", "io.pressure"}:
            assert time.monotonic() < end, pressure_files(pid)
            time.sleep(0.05)


def pressure_files(pid: int | None) -> set[str]:
    """Those a process has open."""
    found = set()
    for link in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.path.basename(os.readlink(link.path)))
    return {name for name in found if name.endswith(".pressure")}


def level_of(events: Subscription, session: str, *wanted: str) -> str:
    """The first of these levels that is told of the session's processors."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        event = events.read(timeout_s=1.0)
        if event is None or event.name != "session.pressure" or event.params["session"] != session:
            continue
        if event.params["kind"] == "cpu" and event.params["level"] in wanted:
            return str(event.params["level"])
    raise AssertionError(f"no pressure {wanted} of {session} was told")
