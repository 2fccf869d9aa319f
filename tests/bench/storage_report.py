"""The tables of sessions on the disk, folders and files. Pure: figures in, Markdown out."""

from __future__ import annotations

import statistics

from tests.bench.crowded import compose_crowded_rows, judge_crowded
from tests.bench.files import compose_files_section
from tests.bench.folders import compose_folder_rows
from tests.bench.folders_start import compose_start_rows, judge_folder_starts
from tests.bench.sessions import SessionFigures, session_rows
from tests.bench.staged import compose_staged_rows, staged_verdicts
from tests.bench.storage import StorageFigures
from tests.bench.tables import Verdict, at_most, table

NEW_S, EXISTING_S, LIST_S, RECOVERY_S = 0.25, 0.03, 0.2, 3.0


def judge_storage(figures: StorageFigures) -> list[Verdict]:
    """What issue 4 wants to be reached."""
    return [
        *_judge_sessions(figures.sessions),
        judge_crowded(figures.crowded),
        *judge_folder_starts(figures.starts),
        *staged_verdicts(figures.staged),
    ]


def _judge_sessions(figures: SessionFigures) -> list[Verdict]:
    measured = {
        "session.ensure, a new one": (statistics.median(figures.new), NEW_S),
        "session.ensure, an existing one": (statistics.median(figures.existing), EXISTING_S),
        f"session.list of {figures.crowd}": (statistics.median(figures.lists), LIST_S),
        f"start-up recovery of {figures.crowd}": (figures.recovery, RECOVERY_S),
    }
    return [
        at_most(what, seconds, target, f"{seconds * 1e3:.1f} ms", f"{target * 1e3:g} ms")
        for what, (seconds, target) in measured.items()
    ]


def compose_storage_sections(figures: StorageFigures) -> list[str]:
    """The sections of docs/benchmarks.md."""
    head, *rows = compose_folder_rows(figures.folders)
    staged_head, *staged_rows = compose_staged_rows(figures.staged)
    return [
        "## Sessions on one disk",
        "A coworkd whose directory holds so many sessions; and a launcher that holds so many open ones, beside one that holds one.",
        table(("", "median", "target"), session_rows(figures.sessions)),
        table(("", "median", "× one session"), compose_crowded_rows(figures.crowded)),
        "## What a folder costs a command",
        table(("", "median", "quartiles", "more than without"), compose_start_rows(figures.starts)),
        "## Work inside a folder",
        "The same script in a plain directory, in a folder of mode `rw` (served by coworkd), and through bindfs, by turns.",
        table(head, [tuple(row) + ("",) * (len(head) - len(row)) for row in rows]),
        "## Staged folders",
        "The worker that commits, beside cp of the same files in the same round; `durable` is cp and a sync of each file.",
        table(staged_head, staged_rows),
        "## Files in and out",
        compose_files_section(figures.files),
    ]
