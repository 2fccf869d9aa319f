"""coworkd killed with -9 and started again: how long until it is ready, and until the first attach is answered.

`python -m tests.bench.restart` prints the rows. Three coworkds by turns: without a command, with 100 in one session, with 100 in
20. The time until Python is there and has imported everything is in all three, so that what the commands cost is the difference.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client, connect
from coworkd.model.errors import Unavailable
from tests.bench.figures import spread
from tests.bench.tables import Verdict, at_most, table, verdict_table
from tests.root.conftest import Daemon, running_daemon

COMMANDS, ROUNDS = 100, 7
TARGET_S = 1.0


class Place(Struct, frozen=True, kw_only=True):
    """One coworkd of the three."""

    name: str
    sessions: int
    commands: int


PLACES = (
    Place(name="no command", sessions=1, commands=0),
    Place(name=f"{COMMANDS} commands in one session", sessions=1, commands=COMMANDS),
    Place(name=f"{COMMANDS} commands in 20 sessions", sessions=20, commands=COMMANDS),
)


class Restart(Struct, frozen=True, kw_only=True):
    """Seconds from the kill."""

    ready_s: float
    attached_s: float
    took_s: float
    """What coworkd says it took, from its own start."""


class Running:
    """One coworkd with its commands, killed as often as is asked for."""

    def __init__(self, place: Place, directory: Path, stack: ExitStack) -> None:
        self.place = place
        self._directory = directory
        self._stack = stack
        self._daemon: Daemon = stack.enter_context(running_daemon(directory))
        with connect(self._daemon.uri) as client:
            for number in range(place.sessions):
                client.session_ensure(name=f"s{number}")
            for number in range(place.commands):
                client.start(f"s{number % place.sessions}", ["sleep", "600"], id=f"c{number}", attach=False)
            client.start("s0", ["sleep", "600"], id="first", attach=False)

    def restart(self) -> Restart:
        began = time.perf_counter()
        self._daemon.child.kill()
        self._daemon.child.wait()
        child = self._start()
        client = self._greeted(child)
        ready_s = time.perf_counter() - began
        client.attach("first")
        attached_s = time.perf_counter() - began
        told = client.hello.restarted
        with client:
            running = sum(each.state == "running" for each in client.process_list().processes)
        if told is None or running != self.place.commands + 1:
            raise RuntimeError(f"{running} commands run after the restart, it says {told}")
        return Restart(ready_s=ready_s, attached_s=attached_s, took_s=told.took_s)

    def _start(self) -> subprocess.Popen[bytes]:
        daemon = self._daemon
        command = [sys.executable, "-m", "coworkd", "local", "--state", str(daemon.state)]
        with daemon.log.open("ab") as log:
            child = subprocess.Popen(
                [*command, "--socket", str(daemon.socket_path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._daemon = Daemon(child, self._directory)
        self._stack.callback(_end, child)
        return child

    def _greeted(self, child: subprocess.Popen[bytes]) -> Client:
        """The first link that finds everything there."""
        while child.poll() is None:
            with contextlib.suppress(Unavailable):
                client = connect(self._daemon.uri)
                if "starting" not in client.hello.degraded and client.hello.restarted is not None:
                    return client
                client.close()
            time.sleep(0.002)
        raise RuntimeError(f"coworkd ended: {self._daemon.log.read_text()}")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
    child.wait(30)


def measure_restart(directory: Path, *, rounds: int = ROUNDS) -> dict[str, list[Restart]]:
    """By place. Needs root; everything it makes lies below `directory`."""
    measured: dict[str, list[Restart]] = {place.name: [] for place in PLACES}
    with ExitStack() as stack:
        running = [Running(place, directory / str(number), stack) for number, place in enumerate(PLACES)]
        for _ in range(rounds):
            for each in running:
                measured[each.place.name].append(each.restart())
    return measured


def judge_restart(measured: dict[str, list[Restart]]) -> list[Verdict]:
    verdicts = []
    for place in PLACES[1:]:
        took_s = spread([each.attached_s for each in measured[place.name]]).median
        what = f"kill -9 → first attach answered, {place.name}"
        verdicts.append(at_most(what, took_s, TARGET_S, f"{took_s:.2f} s", f"{TARGET_S:g} s"))
    return verdicts


def compose_restart_sections(measured: dict[str, list[Restart]]) -> str:
    rows = []
    for name, restarts in measured.items():
        columns = (
            [each.ready_s for each in restarts],
            [each.attached_s for each in restarts],
            [each.took_s for each in restarts],
        )
        cells = [f"{found.median:.3f} ({found.lower:.3f} – {found.upper:.3f})" for found in map(spread, columns)]
        rows.append((name, *cells, f"{min(each.attached_s for each in restarts):.3f}"))
    head = ("kill -9, then", "ready, s", "attached, s", "of that in coworkd, s", "least, s")
    return table(head, rows)


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("tests.bench.restart needs root")
    with tempfile.TemporaryDirectory() as directory:
        measured = measure_restart(Path(directory))
    print(compose_restart_sections(measured))
    print()
    print(verdict_table(judge_restart(measured)))


if __name__ == "__main__":
    main()
