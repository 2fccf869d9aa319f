"""What coworkd costs while nothing happens, while fifty commands run, and until it is ready."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client
from tests.bench.guest import SESSION, Cpu, Guest, Memory, open_guest, read_memory

RUNNING = 50
SETTLE_S = 0.5


class Resident(Struct, frozen=True, kw_only=True):
    """Both programs, by name."""

    processes: dict[str, Memory]


class Start(Struct, frozen=True, kw_only=True):
    """One start with a warm filter cache, up to the ready line."""

    wall_s: float
    cpu: Cpu


def measure_resident(guest: Guest, client: Client) -> Resident:
    """Once what was under way has settled."""
    time.sleep(SETTLE_S)
    pids = {"coworkd": guest.pid, "coworkd-launcher": client.info().launcher_pid}
    return Resident(processes={name: read_memory(pid) for name, pid in pids.items()})


def measure_with_running(guest: Guest, client: Client) -> Resident:
    """With `RUNNING` commands that wait, this link attached to each."""
    with contextlib.ExitStack() as stack:
        for _ in range(RUNNING):
            stack.enter_context(client.start(SESSION, ["/bin/sleep", "3600"]))
        return measure_resident(guest, client)


def measure_starts(directory: Path, *, count: int) -> list[Start]:
    """Start and stop `count` times on a state whose cache is filled."""
    with open_guest(directory):
        pass
    starts = []
    for _ in range(count):
        with open_guest(directory) as guest:
            starts.append(Start(wall_s=guest.ready_s, cpu=guest.ready_cpu))
    return starts
