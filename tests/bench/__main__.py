"""`make bench`: measure everything in one run, print the tables; with --write also into docs/benchmarks.md. Needs root."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from msgspec import Struct

from coworkd import __version__
from coworkd.client.sync import Client
from coworkd.system.guest import read_bwrap_features
from tests.bench.commands import FULL_COMMANDS, QUICK_COMMANDS, CommandsEffort, measure_commands
from tests.bench.commands_report import compose_commands_sections, judge_commands
from tests.bench.egress import FULL_EGRESS, QUICK_EGRESS, EgressEffort, measure_egress
from tests.bench.egress_report import compose_egress_sections, judge_egress
from tests.bench.guest import ROOT, SESSION, open_guest, temporary_directory
from tests.bench.others import OTHERS, NotInstalled, Other
from tests.bench.raw_peer import RawPeer
from tests.bench.report import FIRST_BYTE, RUN, Figures, Machine, Way, compose_part, compose_report
from tests.bench.resident import measure_resident, measure_starts, measure_with_running
from tests.bench.spawning import first_byte, measure_pairs, open_session_peer, run_once
from tests.bench.storage import FULL_STORAGE, QUICK_STORAGE, StorageEffort, measure_storage
from tests.bench.storage_report import compose_storage_sections, judge_storage
from tests.bench.tables import verdict_table
from tests.bench.timer import CommandFailed

REPORT = ROOT / "docs" / "benchmarks.md"
_REASON_CHARACTERS = 100


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    pairs: int
    fast_pairs: int
    slow_pairs: int
    starts: int
    commands: CommandsEffort
    egress: EgressEffort
    storage: StorageEffort


FULL = Effort(
    pairs=100,
    fast_pairs=30,
    slow_pairs=10,
    starts=7,
    commands=FULL_COMMANDS,
    egress=FULL_EGRESS,
    storage=FULL_STORAGE,
)
QUICK = Effort(
    pairs=30,
    fast_pairs=5,
    slow_pairs=2,
    starts=3,
    commands=QUICK_COMMANDS,
    egress=QUICK_EGRESS,
    storage=QUICK_STORAGE,
)


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(effort: Effort) -> Figures:
    with temporary_directory() as directory:
        progress(f"{effort.starts} starts until ready")
        starts = measure_starts(directory, count=effort.starts)
        with open_guest(directory) as guest, guest.connect() as client:
            idle = measure_resident(guest, client)
            session = client.session_ensure(name=SESSION).session
            with open_session_peer(guest, client, session) as peer:
                ways = measure_ways(client, peer, directory, effort)
            egress = measure_egress(directory / "egress", effort.egress, progress)
            progress("memory")
            figures = partial(
                Figures,
                machine=describe_machine(effort),
                ways=ways,
                idle=idle,
                used=measure_resident(guest, client),
                running=measure_with_running(guest, client),
                starts=starts,
                egress=egress,
            )
        commands = measure_commands(make_room(directory, "commands"), effort.commands, progress)
        storage = measure_storage(make_room(directory, "storage"), effort.storage, progress)
        return figures(commands=commands, storage=storage)


def make_room(directory: Path, name: str) -> Path:
    """A directory below `directory` which sessions and owners of folders may pass through."""
    directory.chmod(0o711)
    place = directory / name
    place.mkdir(mode=0o755)
    return place


def measure_ways(client: Client, peer: RawPeer, directory: Path, effort: Effort) -> list[Way]:
    ways = []
    for name, contestant in ((RUN, run_once), (FIRST_BYTE, first_byte)):
        progress(f"{effort.pairs} pairs: raw bubblewrap and {name}")
        ways.append(Way(name=name, pairs=measure_pairs(peer.single, partial(contestant, client), pairs=effort.pairs)))
    ways += [measure_other(other, peer, directory, effort) for other in OTHERS]
    return ways


def measure_other(other: Other, peer: RawPeer, directory: Path, effort: Effort) -> Way:
    """One contestant that need not be here: why it is not, or does not run, is told in its row."""
    pairs = effort.slow_pairs if other.slow else effort.fast_pairs
    progress(f"{pairs} pairs: raw bubblewrap and {other.name}")
    own = directory / other.name.replace(" ", "-")
    own.mkdir()
    directory.chmod(0o711)  # a container's user must be able to reach its root
    try:
        with other.open_(own) as contestant:
            measured = measure_pairs(peer.single, contestant, pairs=pairs)
    except NotInstalled as error:
        return Way(name=other.name, lacks=other.lacks, absent=str(error))
    except (CommandFailed, OSError, ValueError, subprocess.SubprocessError) as error:
        return Way(name=other.name, lacks=other.lacks, absent=f"does not run here: {error}"[:_REASON_CHARACTERS])
    return Way(name=other.name, lacks=other.lacks, pairs=measured)


def describe_machine(effort: Effort) -> Machine:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return Machine(
        facts={
            "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "coworkd": f"{__version__}, Python {platform.python_version()}",
            "bubblewrap": read_bwrap_features().version.removeprefix("bubblewrap "),
            "machine": f"{os.cpu_count()} × {model}, {platform.machine()}, Linux {platform.release()}",
            "load at the end": f"{os.getloadavg()[0]:.1f}",
            "effort": "quick: for development, not for judging" if effort is QUICK else "full",
        }
    )


def tell_commands(place: Path, effort: Effort) -> str:
    commands = measure_commands(place, effort.commands, progress)
    return "\n\n".join([verdict_table(judge_commands(commands)), *compose_commands_sections(commands)])


def tell_egress(place: Path, effort: Effort) -> str:
    egress = measure_egress(place, effort.egress, progress)
    return "\n\n".join([verdict_table(judge_egress(egress)), *compose_egress_sections(egress)])


def tell_storage(place: Path, effort: Effort) -> str:
    stored = measure_storage(place, effort.storage, progress)
    return "\n\n".join([verdict_table(judge_storage(stored)), *compose_storage_sections(stored)])


PARTS = {"commands": tell_commands, "egress": tell_egress, "storage": tell_storage}
"""What can be measured by itself."""


def main() -> int:
    """Measure and tell; 0 whether or not the targets are met, 1 where it cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: for development")
    parser.add_argument("--only", choices=PARTS, help="only that part")
    parser.add_argument(
        "--write", action="store_true", help=f"write {REPORT.relative_to(ROOT)}, or that part's own page, too"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: this needs root: sudo make bench", file=sys.stderr)
        return 1
    effort = QUICK if options.quick else FULL
    if options.only is not None:
        with temporary_directory() as directory:
            told = PARTS[options.only](make_room(directory, options.only), effort)
        print(told)
        if options.write:
            REPORT.with_name(f"benchmarks-{options.only}.md").write_text(compose_part(describe_machine(effort), told))
        return 0
    report = compose_report(measure(effort))
    print(report)
    if options.write:
        REPORT.write_text(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
