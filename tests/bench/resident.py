"""What coworkd costs while nothing happens, while fifty commands run, and until it is ready."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client
from tests.bench.guest import SESSION, Cpu, Guest, Memory, open_guest, read_memory

RUNNING = 50
SETTLE_S = 0.5
WAITING = "coworkd-launcher: its waiting children"


class Resident(Struct, frozen=True, kw_only=True):
    """The programs by name, and the launcher's waiting children together."""

    processes: dict[str, Memory]


class Start(Struct, frozen=True, kw_only=True):
    """One start with a warm filter cache, up to the ready line."""

    wall_s: float
    cpu: Cpu


def measure_resident(guest: Guest, client: Client) -> Resident:
    """Once what was under way has settled."""
    time.sleep(SETTLE_S)
    launcher = client.info().launcher_pid
    processes = {"coworkd": read_memory(guest.pid), "coworkd-launcher": read_memory(launcher)}
    if egress := client.egress_status().pid:
        processes["coworkd-egress"] = read_memory(egress)
    waiting = [read_memory(pid) for pid in read_own_children(launcher)]
    if waiting:
        processes[WAITING] = Memory(
            rss_bytes=sum(memory.rss_bytes for memory in waiting), pss_bytes=sum(memory.pss_bytes for memory in waiting)
        )
    return Resident(processes=processes)


def read_own_children(launcher: int) -> list[int]:
    """The launcher's children that have not become bubblewrap: they run the launcher's own program."""
    own = os.readlink(f"/proc/{launcher}/exe")
    found = []
    for pid in map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.readlink(f"/proc/{pid}/exe") == own:
                found.append(pid)
    return found


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
