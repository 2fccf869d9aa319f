"""The tables and verdicts of egress. Pure: figures in, Markdown out."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from tests.bench.egress import (
    COURSES,
    CROWDS,
    MIB,
    NOTHING,
    ONE_SOCAT,
    OURS,
    RUNTIME,
    SOCAT,
    SOCAT_BIG,
    TUNNELS,
    Contest,
    EgressFigures,
    Held,
)
from tests.bench.figures import paired_ratio, spread
from tests.bench.tables import Verdict, at_least, at_most, mib, ratio, table

THROUGHPUT_RATIO, CONNECTIONS_RATIO, SMALL_P50_S, TUNNELS_BYTES, FULL_RATE = 2.0, 2.0, 0.002, 12 * MIB, 0.8
CONTESTANTS = (OURS, SOCAT, SOCAT_BIG, RUNTIME, ONE_SOCAT, NOTHING)


def judge_egress(figures: EgressFigures) -> Iterator[Verdict]:
    """What issue 3 wants to be reached, against socat with its defaults."""
    ours, socat = figures.contests[OURS], figures.contests[SOCAT]
    if not socat.absent:
        for course in COURSES:
            faster = paired_ratio(socat.bulk[course].seconds, ours.bulk[course].seconds)
            yield at_least(f"egress, {course}: throughput × socat", faster, THROUGHPUT_RATIO)
            cheaper = paired_ratio(_floored(ours.bulk[course].cpu_s), _floored(socat.bulk[course].cpu_s))
            yield at_most(f"egress, {course}: CPU per byte × socat", cheaper.median, 1.0, ratio(cheaper), "1.0")
        more = paired_ratio(socat.crowds[CROWDS[-1]], ours.crowds[CROWDS[-1]])
        yield at_least(f"egress: new connections/s, {CROWDS[-1]} clients × socat", more, CONNECTIONS_RATIO)
    p50 = statistics.median(ours.small)
    yield at_most("egress: small request on a new connection, p50", p50, SMALL_P50_S, _ms(p50), "2.00 ms")
    assert ours.held is not None
    added, processes = _added_rss(ours.held), ours.held.held.processes - ours.held.before.processes
    yield at_most(f"egress: {TUNNELS} tunnels add", added, TUNNELS_BYTES, mib(added), mib(TUNNELS_BYTES))
    yield at_most(f"egress: processes for {TUNNELS} tunnels", processes, 0, str(processes), "0")
    yield from _judge_many(figures)


def _judge_many(figures: EgressFigures) -> Iterator[Verdict]:
    many = figures.many
    rate = paired_ratio(many.alone_s, many.beside_s)
    what = f"egress: a new tunnel's rate beside {many.tunnels} × alone"
    yield at_least(what, rate, FULL_RATE)
    left = many.after.descriptors - many.held.before.descriptors
    yield at_most(f"egress: descriptors left of {many.tunnels} tunnels", left, 0, str(left), "0")


def compose_egress_sections(figures: EgressFigures) -> list[str]:
    """Headings, words and tables."""
    effort = figures.effort
    return [
        "## Egress",
        "One client, one server behind a veth pair, in a lab of their own. `socat` is the pair that a client with only lo needs (one beside"
        " it, one outside, a unix socket between): it asks no policy, resolves nothing, records nothing, and its client is spared the"
        " handshake. sandbox-runtime puts its proxy behind such a pair. Beside them, and not to be had by a session: one socat for a client"
        " that has the guest's network, and no proxy at all, which is as fast as client, server and kernel are here. coworkd decides,"
        " guards and has each connection in the audit log before its first byte. CPU is that of whoever relays, coworkd's audit included.",
        f"### {effort.bulk_bytes // MIB} MiB",
        table(("", "way", "MiB/s", "CPU s per GiB", "coworkd's rate ×", "coworkd's CPU ×"), _bulk_rows(figures)),
        "### New connections",
        f"A request and an answer of 64 bytes each on a connection of its own; {effort.crowd} a round.",
        table(("", *(f"{size} at a time" for size in CROWDS), "p50", "p99"), _connection_rows(figures)),
        *_failed(figures),
        f"### {TUNNELS} open tunnels",
        table(("", "processes", "RSS added", "PSS added"), _held_rows(figures)),
        f"### {figures.many.tunnels} open tunnels",
        table(("", ""), _many_rows(figures)),
    ]


def _failed(figures: EgressFigures) -> Iterator[str]:
    rows = [f"{name} {contest.failures}" for name, contest in _present(figures) if contest.failures]
    if rows:
        yield f"Runs of these failed and were made again, most often because the last bytes never came: {', '.join(rows)}."


def _bulk_rows(figures: EgressFigures) -> Iterator[tuple[str, ...]]:
    size = figures.effort.bulk_bytes
    ours = figures.contests[OURS]
    for name, contest in _present(figures):
        for course, bulk in contest.bulk.items():
            rate = f"{size / MIB / spread(bulk.seconds).median:.0f}"
            cpu = f"{spread(bulk.cpu_s).median * 1024 * MIB / size:.2f}"
            if name == OURS:
                yield (name, course, rate, cpu, "", "")
                continue
            faster = paired_ratio(bulk.seconds, ours.bulk[course].seconds)
            dearer = ""
            if name != NOTHING:
                dearer = ratio(paired_ratio(_floored(ours.bulk[course].cpu_s), _floored(bulk.cpu_s)))
            yield (name, course, rate, cpu if dearer else "", ratio(faster), dearer)
    for name, contest in figures.contests.items():
        if contest.absent:
            yield (name, contest.absent, "", "", "", "")


def _connection_rows(figures: EgressFigures) -> Iterator[tuple[str, ...]]:
    for name, contest in _present(figures):
        rates = (f"{figures.effort.crowd / spread(contest.crowds[size]).median:.0f}/s" for size in CROWDS)
        yield (name, *rates, _ms(statistics.median(contest.small)), _ms(_p99(contest.small)))
    rest = ("",) * len(CROWDS)
    yield (f"{OURS}, by name", *rest, _ms(statistics.median(figures.named)), _ms(_p99(figures.named)))


def _held_rows(figures: EgressFigures) -> Iterator[tuple[str, ...]]:
    for name, contest in _present(figures):
        if contest.held is not None:
            before, held = contest.held.before, contest.held.held
            pss = held.memory.pss_bytes - before.memory.pss_bytes
            yield (name, f"+{held.processes - before.processes}", mib(_added_rss(contest.held)), mib(pss))


def _many_rows(figures: EgressFigures) -> Iterator[tuple[str, str]]:
    many, size = figures.many, figures.effort.bulk_bytes / MIB
    yield ("stalled among them", str(many.stalled))
    yield ("a new one alone", f"{size / spread(many.alone_s).median:.0f} MiB/s")
    yield ("a new one beside them", f"{size / spread(many.beside_s).median:.0f} MiB/s")
    yield ("RSS added", mib(_added_rss(many.held)))
    counts = (many.held.before.descriptors, many.held.held.descriptors, many.after.descriptors)
    yield ("descriptors before, with them, after", ", ".join(map(str, counts)))


def _present(figures: EgressFigures) -> Iterator[tuple[str, Contest]]:
    for name in CONTESTANTS:
        contest = figures.contests.get(name)
        if contest is not None and not contest.absent:
            yield name, contest


def _added_rss(held: Held) -> int:
    return held.held.memory.rss_bytes - held.before.memory.rss_bytes


def _floored(cpu_s: list[float]) -> list[float]:
    """The kernel counts in ticks of 10 ms: less is one."""
    return [max(each, 0.01) for each in cpu_s]


def _p99(figures: list[float]) -> float:
    return sorted(figures)[min(len(figures) - 1, len(figures) * 99 // 100)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
