"""What a running command weighs in the supervisor and the launcher together, and what both weigh while nothing runs.

A weight is how much the anonymous memory of both programs grows for a crowd of commands that wait, divided by their number (proc(5),
RssAnon): pages that are theirs alone or shared with a waiting child of theirs, and nothing that is a file's. What pipes, spools and
descriptors take is the kernel's, and not in it.

Run alone: `python -m tests.bench.weight [--quick]`; needs root.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client
from tests.bench.guest import SESSION, Guest, open_guest, read_memory, temporary_directory
from tests.bench.tables import MIB, Verdict, at_most, mib, table, verdict_table

KIB = 1024
COMMAND = ["/bin/sleep", "3600"]
COMMANDS = 200
WARM_UP = 20
SETTLE_S = 1.0
A_COMMAND_KIB, IDLE_MIB = 60.0, 36.0


class Weight(Struct, frozen=True, kw_only=True):
    """Bytes of anonymous memory by program."""

    coworkd: int
    launcher: int


class Weighed(Struct, frozen=True, kw_only=True):
    """One crowd: before it, with it, and when it has gone; the resident set of an idle coworkd before all that."""

    commands: int
    idle_rss_bytes: int
    before: Weight
    running: Weight
    after: Weight

    @property
    def a_command_bytes(self) -> float:
        """Of both programs together."""
        grown = self.running.coworkd - self.before.coworkd + self.running.launcher - self.before.launcher
        return grown / self.commands


def measure_weight(guest: Guest, client: Client, *, commands: int) -> Weighed:
    """What a few commands leave for those that come is there before anything is weighed."""
    client.session_ensure(name=SESSION)
    time.sleep(SETTLE_S)
    idle = read_memory(guest.pid).rss_bytes
    _hold(client, WARM_UP, lambda: None)
    before = _weigh(guest, client)
    weighed: list[Weight] = []
    _hold(client, commands, lambda: weighed.append(_weigh(guest, client)))
    return Weighed(
        commands=commands, idle_rss_bytes=idle, before=before, running=weighed[0], after=_weigh(guest, client)
    )


def _hold(client: Client, count: int, then: Callable[[], None]) -> None:
    """Run so many that wait, this link attached to each, call `then`, and end them."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(client.start(SESSION, COMMAND))
        then()


def _weigh(guest: Guest, client: Client) -> Weight:
    time.sleep(SETTLE_S)
    return Weight(coworkd=_read_anonymous(guest.pid), launcher=_read_anonymous(client.info().launcher_pid or 0))


def _read_anonymous(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KIB
    raise RuntimeError(f"process {pid} has no memory")


def compose_weight_rows(weighed: Sequence[Weighed]) -> list[tuple[str, ...]]:
    """The median of the rounds."""

    def median(of: Callable[[Weighed], float]) -> float:
        return statistics.median(map(of, weighed))

    count = weighed[0].commands
    ours = median(lambda w: (w.running.coworkd - w.before.coworkd) / w.commands) / KIB
    launcher = median(lambda w: (w.running.launcher - w.before.launcher) / w.commands) / KIB
    return [
        (f"coworkd for one of {count} running commands", f"{ours:.1f} KiB"),
        (f"coworkd-launcher for one of {count} running commands", f"{launcher:.1f} KiB"),
        ("coworkd: left when they have gone", mib(median(lambda w: w.after.coworkd - w.before.coworkd))),
        ("coworkd-launcher: left when they have gone", mib(median(lambda w: w.after.launcher - w.before.launcher))),
    ]


def judge_weight(weighed: Sequence[Weighed]) -> list[Verdict]:
    command = statistics.median(each.a_command_bytes for each in weighed) / KIB
    idle = statistics.median(each.idle_rss_bytes for each in weighed) / MIB
    return [
        at_most(
            "a running command, both programs", command, A_COMMAND_KIB, f"{command:.1f} KiB", f"{A_COMMAND_KIB} KiB"
        ),
        at_most("coworkd: idle RSS", idle, IDLE_MIB, f"{idle:.1f} MiB", f"{IDLE_MIB} MiB"),
    ]


def main() -> None:
    rounds, commands = (1, 50) if "--quick" in sys.argv else (3, COMMANDS)
    weighed = []
    for _ in range(rounds):
        with temporary_directory() as directory, open_guest(directory) as guest, guest.connect() as client:
            weighed.append(measure_weight(guest, client, commands=commands))
    print(table(("", "weighs"), compose_weight_rows(weighed)))
    print()
    print(verdict_table(judge_weight(weighed)))


if __name__ == "__main__":
    main()
