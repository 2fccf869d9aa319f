"""What a start costs in a sandbox that waited, in one of its own, and by raw bubblewrap, by turns; a thousand; what it costs to wait.

Run alone: `python -m tests.bench.starts [--quick] [--many COUNT]`; needs root. With --many so many commands are run besides, and what they
have left is told.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client
from coworkd.system.cgroup import find_root, parse_own
from tests.bench.figures import Ratio, paired_ratio, spread
from tests.bench.guest import SESSION, Guest, open_guest, read_memory, temporary_directory
from tests.bench.spawning import COMMAND, Crowd, Pairs, measure_crowd, open_session_peer
from tests.bench.tables import MIB, Verdict, at_most, mib, ratio, table, verdict_table

WARM_RATIO, COLD_RATIO = 0.5, 1.25
WAITING_MIB, IDLE_MIB = 10.0, 0.5
CONCURRENCY = 32
WAITING_SESSIONS, IDLE_SESSIONS = 4, 16
SETTLE_S = 0.02
PATIENCE_S = 10.0
KEPT_SESSIONS = 8
"""How many sessions the launcher lets have something that waits."""
PROFILE = 'inherits = "default"\n[sandbox]\nwarm = 0\n'
"""`cold`: as the default one, with nothing that waits."""


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    pairs: int
    crowd: int
    crowd_rounds: int


FULL = Effort(pairs=100, crowd=1000, crowd_rounds=3)
QUICK = Effort(pairs=25, crowd=200, crowd_rounds=1)


class Left(Struct, frozen=True, kw_only=True):
    """What can be left: descriptors of coworkd and its launcher, processes below the launcher, cgroups of commands, mounts."""

    descriptors: int
    processes: int
    cgroups: int
    mounts: int


class StartFigures(Struct, frozen=True, kw_only=True):
    """One run. Memory is proportional (PSS), in bytes for each session."""

    warm: Pairs
    cold: Pairs
    crowd: Crowd
    counts: dict[str, int]
    waiting_bytes: float
    idle_bytes: float


def write_policies(directory: Path) -> Path:
    """An admin's policies with the profile `cold`."""
    profiles = directory / "policies" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "cold.toml").write_text(PROFILE)
    return profiles.parent


def run_once(client: Client, session: str) -> float:
    """Seconds of one `process.run`, from the call to its answer."""
    began = time.perf_counter()
    ran = client.run(session, [COMMAND])
    took = time.perf_counter() - began
    if ran.exit.code != 0:
        raise RuntimeError(f"{COMMAND} ended with {ran.exit}")
    return took


def wait_warm(client: Client, count: int = 1) -> None:
    """Until so many sandboxes wait."""
    deadline = time.monotonic() + PATIENCE_S
    while client.stats().warm.get("waiting", 0) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {count} sandboxes waited within {PATIENCE_S:g} s: {client.stats().warm}")
        time.sleep(SETTLE_S / 4)
    time.sleep(SETTLE_S)


def measure_starts(guest: Guest, client: Client, effort: Effort) -> tuple[Pairs, Pairs, Crowd]:
    """Raw, warm, raw, cold, raw, warm …; then the crowd."""
    session = client.session_ensure(name=SESSION).session
    client.session_ensure(name="cold", profile="cold")
    warm, cold = Pairs(base_s=[], other_s=[]), Pairs(base_s=[], other_s=[])
    with open_session_peer(guest, client, session) as peer:
        for name in (SESSION, "cold"):
            run_once(client, name)
        for _ in range(effort.pairs):
            for figures, name in ((warm, SESSION), (cold, "cold")):
                wait_warm(client)
                figures.base_s.append(peer.single())
                time.sleep(SETTLE_S)
                figures.other_s.append(run_once(client, name))
        crowd = measure_crowd(guest, peer, rounds=effort.crowd_rounds, count=effort.crowd, concurrency=CONCURRENCY)
    return warm, cold, crowd


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    pending = [pid]
    while pending:
        each = pending.pop()
        try:
            children = [int(word) for word in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
        except FileNotFoundError:
            continue
        found += children
        pending += children
    return found


def weigh(pids: list[int]) -> int:
    return sum(read_memory(pid).pss_bytes for pid in pids if os.path.exists(f"/proc/{pid}"))


def measure_waiting(guest: Guest, client: Client) -> tuple[float, float]:
    """What a session costs whose next command has a sandbox that waits, and one that nobody has used for a while, each in bytes."""
    launcher = client.info().launcher_pid
    for number in range(KEPT_SESSIONS):  # from here on each new one takes the place of another
        client.session_ensure(name=f"old{number}", profile="cold")
    time.sleep(1)
    before = weigh([guest.pid, launcher])
    for number in range(IDLE_SESSIONS):
        client.session_ensure(name=f"idle{number}", profile="cold")
    time.sleep(1)
    idle = (weigh([guest.pid, launcher]) - before) / IDLE_SESSIONS
    for number in range(WAITING_SESSIONS):
        client.session_ensure(name=f"warm{number}")
        run_once(client, f"warm{number}")
    wait_warm(client, WAITING_SESSIONS)
    waiting = [pid for pid in below(launcher) if _is_of_warm(pid)]
    return weigh(waiting) / WAITING_SESSIONS + idle, idle


def _is_of_warm(pid: int) -> bool:
    """Whether it is bubblewrap around a waiting shim, or that shim."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"/proc/self/fd/8" in words


def own_cgroups(pids: list[int]) -> set[Path]:
    """The cgroups v2 that hold the sessions of the launcher whose commands `pids` are."""
    mounted = find_root(Path("/proc/self/mountinfo").read_text())
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            path = parse_own(Path(f"/proc/{pid}/cgroup").read_text())
            if mounted is not None and path is not None and "/s-" in path:
                found.add(Path(mounted + path.partition("/s-")[0]))
    return found


def count_left(guest: Guest, client: Client) -> Left:
    launcher = client.info().launcher_pid
    programs = (guest.pid, launcher)
    return Left(
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in programs),
        processes=len(below(launcher)),
        cgroups=sum(1 for root in own_cgroups(below(launcher)) for path in root.rglob("p-*") if path.is_dir()),
        mounts=len(Path(f"/proc/{launcher}/mounts").read_text().splitlines()),
    )


def measure_many(guest: Guest, client: Client, count: int) -> tuple[Left, Left]:
    """What is there before `count` commands, and after."""
    client.session_ensure(name=SESSION)
    for _ in range(20):
        run_once(client, SESSION)
    wait_warm(client)
    before = count_left(guest, client)
    for _ in range(count):
        run_once(client, SESSION)
    wait_warm(client)
    return before, count_left(guest, client)


def measure(effort: Effort, say: Callable[[str], None]) -> StartFigures:
    with temporary_directory() as directory:
        policies = write_policies(directory)
        with open_guest(directory, "--policies", str(policies)) as guest, guest.connect() as client:
            say(f"{effort.pairs} rounds: raw bubblewrap, a sandbox that waited, one of its own")
            warm, cold, crowd = measure_starts(guest, client, effort)
            counts = client.stats().warm
            say("memory of sessions")
            waiting, idle = measure_waiting(guest, client)
    return StartFigures(warm=warm, cold=cold, crowd=crowd, counts=counts, waiting_bytes=waiting, idle_bytes=idle)


# -- telling ------------------------------------------------------------------------------------------------------


def judge_starts(figures: StartFigures) -> list[Verdict]:
    """What issue 6 wants to be reached."""
    verdicts = []
    for name, pairs, limit in (("warm", figures.warm, WARM_RATIO), ("cold", figures.cold, COLD_RATIO)):
        found = _ratio(pairs)
        verdicts.append(
            at_most(f"{name} process.run of /bin/true × raw bubblewrap", found.median, limit, ratio(found), f"{limit}")
        )
    for name, size, limit in (
        ("an idle session with a sandbox that waits", figures.waiting_bytes, WAITING_MIB),
        ("an idle session without", figures.idle_bytes, IDLE_MIB),
    ):
        verdicts.append(at_most(name, size, limit * MIB, mib(size), f"{limit} MiB"))
    return verdicts


def compose_starts_sections(figures: StartFigures) -> list[str]:
    rows = []
    for name, base, other in (
        ("/bin/true, warm", figures.warm.base_s, figures.warm.other_s),
        ("/bin/true, cold", figures.cold.base_s, figures.cold.other_s),
        (
            f"{figures.crowd.count} × /bin/true, {figures.crowd.concurrency} at a time",
            figures.crowd.pairs.base_s,
            figures.crowd.pairs.other_s,
        ),
    ):
        ours, raw = spread(other), spread(base)
        rows.append(
            (
                name,
                _ms(raw.median),
                _ms(ours.median),
                f"{_ms(min(base))} / {_ms(min(other))}",
                ratio(paired_ratio(other, base)),
            )
        )
    heads = ("", "raw bubblewrap", "coworkd", "the least of both", "ratio")
    counted = ", ".join(f"{name} {count}" for name, count in figures.counts.items())
    return ["## Starts, warm and cold", table(heads, rows), f"Sandboxes that waited, by the end of these: {counted}."]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _ratio(pairs: Pairs) -> Ratio:
    return paired_ratio(pairs.other_s, pairs.base_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.starts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: for development")
    parser.add_argument("--many", type=int, metavar="COUNT", help="run so many commands, and tell what they left")
    options = parser.parse_args()
    say = partial(print, file=sys.stderr, flush=True)
    if options.many is not None:
        with temporary_directory() as directory, open_guest(directory) as guest, guest.connect() as client:
            before, after = measure_many(guest, client, options.many)
        heads = ("", *Left.__struct_fields__)
        rows = [
            (name, *(str(getattr(left, field)) for field in Left.__struct_fields__))
            for name, left in (("before", before), ("after", after))
        ]
        print(table(heads, rows))
        return 0 if after.processes <= before.processes and after.cgroups <= before.cgroups else 1
    figures = measure(QUICK if options.quick else FULL, say)
    print("\n\n".join([verdict_table(judge_starts(figures)), *compose_starts_sections(figures)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
