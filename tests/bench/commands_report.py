"""The tables of starts, streams, restarts and bad neighbours. Pure: figures in, Markdown out."""

from __future__ import annotations

from tests.bench.abuse import compose_abuse_rows, judge_abuse
from tests.bench.attach import compose_attach_rows
from tests.bench.commands import CommandsFigures
from tests.bench.fairness import compose_fairness_rows, judge_fairness
from tests.bench.restart import compose_restart_sections, judge_restart
from tests.bench.starts import compose_starts_sections, judge_starts
from tests.bench.streaming import compose_streaming_sections, judge_streaming
from tests.bench.streams import SHARING_HEAD, compose_sharing_rows, judge_sharing
from tests.bench.tables import Verdict, table
from tests.bench.weight import compose_weight_rows, judge_weight


def judge_commands(figures: CommandsFigures) -> list[Verdict]:
    """What issue 6 wants to be reached."""
    return [
        *judge_starts(figures.starts),
        *judge_streaming(figures.streamed),
        *judge_sharing(figures.shared),
        *judge_weight(figures.weighed),
        *judge_restart(figures.restarts),
        *judge_fairness(figures.fairness),
        *judge_abuse(figures.abused),
    ]


def compose_commands_sections(figures: CommandsFigures) -> list[str]:
    """The sections of docs/benchmarks.md."""
    return [
        *compose_starts_sections(figures.starts),
        *compose_streaming_sections(figures.streamed),
        "## Streams side by side",
        "The same bytes from one command, and shared among many, to one client; and the same of a plain loop that keeps as much of each.",
        table(SHARING_HEAD, compose_sharing_rows(figures.shared)),
        "## What a running command weighs",
        "By how much the anonymous memory of both programs grows for a crowd of commands that wait.",
        table(("", "weighs"), compose_weight_rows(figures.weighed)),
        "## Output that is had again",
        "`process.attach` from the first byte, beside a plain loop over the same bytes.",
        table(("64 MiB that were kept", "rate", "to the plain loop"), compose_attach_rows(figures.replays)),
        "## kill -9 of coworkd",
        "A hundred commands run on; the time is from the kill, and Python's own start is in it.",
        compose_restart_sections(figures.restarts),
        "## Beside a troublemaker",
        "A busy loop that writes nothing is there for comparison: so much is what a second command costs on this machine.",
        table(("beside", "5 starts, to alone", "64 MiB, to alone"), compose_fairness_rows(figures.fairness)),
        "## Beside a session that does its worst",
        "`ping` inside a booted guest, which is emulated here; rest and each abuse by turns.",
        table(
            (
                "while a session …",
                "at rest",
                "median",
                "ratio",
                "at rest, 99 of 100 within",
                "99 of 100 within",
            ),
            compose_abuse_rows(figures.abused),
        ),
    ]
