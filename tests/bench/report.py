"""The tables. Pure: figures in, Markdown out."""

from __future__ import annotations

from msgspec import Struct

from tests.bench.commands import CommandsFigures
from tests.bench.commands_report import compose_commands_sections, judge_commands
from tests.bench.egress import EgressFigures
from tests.bench.egress_report import compose_egress_sections, judge_egress
from tests.bench.figures import Ratio, Spread, paired_ratio, spread
from tests.bench.resident import RUNNING, Resident, Start
from tests.bench.spawning import Pairs
from tests.bench.storage import StorageFigures
from tests.bench.storage_report import compose_storage_sections, judge_storage
from tests.bench.tables import MIB, Verdict, at_most, mib, ratio, table, verdict_table

LAUNCHER_RSS_BYTES, READY_CPU_S = 16 * MIB, 0.4
RUN, FIRST_BYTE = "coworkd: process.run", "coworkd: process.start to the first byte"


class Way(Struct, frozen=True, kw_only=True):
    """One way to run a command: measured against raw bubblewrap, or `absent` says why it was not."""

    name: str
    lacks: str = ""
    pairs: Pairs | None = None
    absent: str = ""


class Machine(Struct, frozen=True, kw_only=True):
    """Where it was measured, each as a person would say it."""

    facts: dict[str, str]


class Figures(Struct, frozen=True, kw_only=True):
    """Everything that one run measured."""

    machine: Machine
    ways: list[Way]
    idle: Resident
    used: Resident
    running: Resident
    starts: list[Start]
    commands: CommandsFigures
    egress: EgressFigures
    storage: StorageFigures


def judge(figures: Figures) -> list[Verdict]:
    """What issues 2 to 6 want to be reached."""
    rss = figures.idle.processes["coworkd-launcher"].rss_bytes
    cpu_s = spread([start.cpu.own_s + start.cpu.children_s for start in figures.starts]).median
    return [
        *judge_commands(figures.commands),
        at_most("coworkd-launcher: idle RSS", rss, LAUNCHER_RSS_BYTES, mib(rss), mib(LAUNCHER_RSS_BYTES)),
        at_most("CPU until ready", cpu_s, READY_CPU_S, f"{cpu_s:.2f} s", f"{READY_CPU_S} s"),
        *judge_egress(figures.egress),
        *judge_storage(figures.storage),
    ]


def compose_report(figures: Figures) -> str:
    """The whole of docs/benchmarks.md."""
    sections = [
        "# Benchmarks",
        "Made by `make bench` (tests/bench/); do not edit. Contestants run by turns (A B A B …); a ratio is the median of the ratios of"
        " neighbours, with the interval that holds 95 % of the medians of resampled pairs.",
        table(("", ""), figures.machine.facts.items()),
        "## Targets",
        verdict_table(judge(figures)),
        "## One command, /bin/true",
        "Raw bubblewrap gets the very options, filters and namespaces coworkd gives it, by a minimal launcher (posix_spawn to wait4)."
        " Ours is from the client's call to its answer, over a unix socket, with the audit record on disk, and"
        " in a sandbox that waited.",
        table(("way", "median", "quartiles", "× raw bubblewrap", "raw beside it", "lacks"), map(_way, figures.ways)),
        "## Memory",
        table(("process", "", "RSS", "PSS"), _memory(figures)),
        "## Until ready",
        "`coworkd local` from exec to its ready line, filters in the cache. The launcher is a program of its own.",
        table(("", "median", "quartiles"), _starts(figures.starts)),
        *compose_commands_sections(figures.commands),
        *compose_storage_sections(figures.storage),
        *compose_egress_sections(figures.egress),
    ]
    return "\n\n".join(sections) + "\n"


def compose_part(machine: Machine, told: str) -> str:
    """The page of a part that was measured by itself."""
    made = "Made by `make bench ARGS='--only PART'` (tests/bench/); do not edit. How it is measured: [benchmarks.md](benchmarks.md)."
    return "\n\n".join(["# Benchmarks: one part", made, table(("", ""), machine.facts.items()), told]) + "\n"


def _way(way: Way) -> tuple[str, ...]:
    if way.pairs is None:
        return (way.name, way.absent, "", "", "", way.lacks)
    mine, raw = spread(way.pairs.other_s), spread(way.pairs.base_s)
    return (way.name, _ms(mine.median), _quartiles(mine), ratio(_ratio_of(way)), _ms(raw.median), way.lacks)


def _ratio_of(way: Way) -> Ratio:
    assert way.pairs is not None
    return paired_ratio(way.pairs.other_s, way.pairs.base_s)


def _memory(figures: Figures) -> list[tuple[str, ...]]:
    states = {"idle": figures.idle, "after all of the above": figures.used, f"{RUNNING} running": figures.running}
    names = dict.fromkeys(name for resident in states.values() for name in resident.processes)
    return [
        (name, state, mib(memory.rss_bytes), mib(memory.pss_bytes))
        for name in names
        for state, resident in states.items()
        if (memory := resident.processes.get(name)) is not None
    ]


def _starts(starts: list[Start]) -> list[tuple[str, ...]]:
    rows = {
        "wall time": [start.wall_s for start in starts],
        "CPU, coworkd": [start.cpu.own_s for start in starts],
        "CPU, children it waited for": [start.cpu.children_s for start in starts],
    }
    spreads = {name: spread(row) for name, row in rows.items()}
    return [(name, f"{row.median:.2f} s", f"{row.lower:.2f} – {row.upper:.2f} s") for name, row in spreads.items()]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _quartiles(figures: Spread) -> str:
    return f"{figures.lower * 1000:.2f} – {figures.upper * 1000:.2f} ms"
