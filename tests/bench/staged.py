"""What a commit of a staged folder costs: 10,000 files brought to the host, beside `cp -a` of the same files, by turns.

`measure_staged` gives seconds of each course, round by round; `compose_staged_rows` the medians and the ratios to cp. By itself:
`python -m tests.bench.staged [--quick]`. The stage and the source stand on one file system; the work is the worker's own, without the
half millisecond that coworkd and the launcher add. cp makes nothing durable; `cp, durable` is followed by sync(1) of the file system.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from coworkd.model.stage import (
    CommitStaged,
    ListStaged,
    Prepared,
    PrepareStage,
    StageCommitted,
    StagedListed,
    StagePlace,
    TakeBaseline,
)
from coworkd.workers.stage_work import answer
from tests.bench.figures import paired_ratio
from tests.bench.tables import Verdict, at_most, ratio

PREPARE, LIST, COMMIT, COPY, DURABLE = "baseline", "changes", "commit", "cp -a", "cp -a, durable"
_COURSES = (PREPARE, LIST, COMMIT, COPY, DURABLE)
COMMIT_TARGET_S = 10.0
_A = TypeVar("_A")


class StagedEffort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    files: int
    file_bytes: int


FULL_STAGED = StagedEffort(rounds=5, files=10_000, file_bytes=4_000)
QUICK_STAGED = StagedEffort(rounds=2, files=10_000, file_bytes=4_000)
_KINDS = ("new files", "changed files")


class StagedFigures(Struct, frozen=True, kw_only=True):
    """Seconds of each round: kind of change → course → rounds."""

    effort: StagedEffort
    seconds: dict[str, dict[str, list[float]]]


def measure_staged(directory: Path, effort: StagedEffort, progress: Callable[[str], None]) -> StagedFigures:
    """Each kind of change in a fresh stage each round, cp right after the commit."""
    seconds: dict[str, dict[str, list[float]]] = {kind: {course: [] for course in _COURSES} for kind in _KINDS}
    for number in range(effort.rounds):
        progress(f"staged: round {number + 1} of {effort.rounds}, {effort.files:,} files")
        for kind in _KINDS:
            place = directory / f"{kind.split()[0]}-{number}"
            for course, taken in _measure_round(place, effort, changed=kind == "changed files").items():
                seconds[kind][course].append(taken)
            shutil.rmtree(place)
    return StagedFigures(effort=effort, seconds=seconds)


def _measure_round(place: Path, effort: StagedEffort, *, changed: bool) -> dict[str, float]:
    source, stage, copies = place / "source", place / "stage", place / "copies"
    source.mkdir(parents=True)
    copies.mkdir()
    if changed:
        _fill(source, effort, b"a")
    os.sync()
    staged = StagePlace(stage=bytes(stage), root=bytes(place), source=b"source")
    _ask(PrepareStage(id=1, place=staged, uid=os.getuid(), gid=os.getgid()), Prepared)
    taken = {PREPARE: _timed(lambda: answer(TakeBaseline(id=2, place=staged), _no_step))}
    _fill(stage / "upper", effort, b"b")
    os.sync()
    taken[LIST] = _timed(lambda: _ask(ListStaged(id=3, place=staged), StagedListed))
    for name, then in ((COPY, ()), (DURABLE, ("sync", "-f", str(copies)))):
        began = time.perf_counter()
        subprocess.run(["cp", "-a", str(stage / "upper"), str(copies / name)], check=True)
        if then:
            subprocess.run(then, check=True)
        taken[name] = time.perf_counter() - began
        os.sync()
    began = time.perf_counter()
    done = _ask(CommitStaged(id=4, place=staged, paths=None, overwrite=False), StageCommitted)
    taken[COMMIT] = time.perf_counter() - began
    if done.conflicts or done.failed or done.committed < effort.files:
        raise RuntimeError(f"the commit did not do all: {done.committed} of {effort.files}")
    return taken


def _fill(top: Path, effort: StagedEffort, letter: bytes) -> None:
    data = letter * effort.file_bytes
    for number in range(effort.files):
        directory = top / f"d{number // 100}"
        if number % 100 == 0:
            directory.mkdir(exist_ok=True)
        (directory / str(number)).write_bytes(data)


def _ask(request: PrepareStage | ListStaged | CommitStaged, kind: type[_A]) -> _A:
    answered = answer(request, _no_step, xattr_prefix="user.")
    if not isinstance(answered, kind):
        raise RuntimeError(f"the worker answered {answered}")
    return answered


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _no_step(path: bytes) -> None:
    """Nobody asks how far it is."""


def compose_staged_rows(figures: StagedFigures) -> list[tuple[str, ...]]:
    """A head, then one row a kind of change: medians, and the commit's ratio to cp of the same round."""
    rows: list[tuple[str, ...]] = [("", PREPARE, LIST, COMMIT, COPY, DURABLE, "commit / cp", "commit / cp, durable")]
    for kind, rounds in figures.seconds.items():
        medians = [f"{statistics.median(rounds[course]):.2f} s" for course in _COURSES]
        beside = [ratio(paired_ratio(rounds[COMMIT], rounds[other])) for other in (COPY, DURABLE)]
        rows.append((f"{figures.effort.files:,} {kind}", *medians, *beside))
    return rows


def staged_verdicts(figures: StagedFigures) -> list[Verdict]:
    """The targets that a commit has."""
    slowest = max(statistics.median(rounds[COMMIT]) for rounds in figures.seconds.values())
    return [
        at_most(
            f"a commit of {figures.effort.files:,} files",
            slowest,
            COMMIT_TARGET_S,
            f"{slowest:.2f} s",
            f"{COMMIT_TARGET_S:g} s",
        )
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as made:
        chosen = QUICK_STAGED if "--quick" in sys.argv else FULL_STAGED
        for row in compose_staged_rows(measure_staged(Path(made), chosen, lambda text: print(text, file=sys.stderr))):
            print("  ".join(cell.rjust(18) for cell in row))
