"""Sessions on the disk: making and finding one, a start with 2,000, listing them, and whether they slow a command down.

`python -m tests.bench.sessions` prints the rows. Two coworkds run side by side, one with a single session and one with 2,000, and are
asked by turns, so that what the machine does meanwhile meets both.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client
from coworkd.model.session import RECORD_FORMAT
from tests.root.conftest import running_daemon
from tests.root.live import client_of

CROWD = 2000
NEW, EXISTING, LISTS, PAIRS = 30, 100, 20, 100
FIRST_UID = 2000


class SessionFigures(Struct, frozen=True, kw_only=True):
    """Seconds, as they were measured."""

    crowd: int
    new: list[float]
    existing: list[float]
    recovery: float
    """The stage `sessions` of a start with the crowd."""
    lists: list[float]
    run_alone: list[float]
    run_crowded: list[float]
    """Pair by pair with `run_alone`."""


def measure_sessions(directory: Path, *, crowd: int = CROWD, pairs: int = PAIRS) -> SessionFigures:
    """Needs root. Everything it makes lies below `directory`."""
    crowded = directory / "crowded"
    make_crowd(crowded, crowd)
    with ExitStack() as stack:
        few = stack.enter_context(client_of(stack.enter_context(running_daemon(directory / "few"))))
        daemon = stack.enter_context(running_daemon(crowded))
        many = stack.enter_context(client_of(daemon))
        recovery = next(stage.took_s for stage in many.hello.stages if stage.name == "sessions")
        new = [timed(partial(many.session_ensure, name=f"new-{number}")) for number in range(NEW)]
        existing = [timed(lambda: many.session_ensure(name="new-0")) for _ in range(EXISTING)]
        lists = [timed(many.session_list) for _ in range(LISTS)]
        few.session_ensure(name="new-0")
        run_alone, run_crowded = run_by_turns(few, many, pairs)
        for number in range(NEW):
            many.session_delete(session=f"new-{number}", force=True)
    return SessionFigures(
        crowd=crowd,
        new=new,
        existing=existing,
        recovery=recovery,
        lists=lists,
        run_alone=run_alone,
        run_crowded=run_crowded,
    )


def make_crowd(place: Path, crowd: int) -> None:
    """The disk of a coworkd that has had so many sessions, as it would have left it."""
    records = place / "state/.coworkd/sessions"
    records.mkdir(parents=True)
    for number in range(crowd):
        name, uid = f"crowd-{number}", FIRST_UID + number
        record = {"format": RECORD_FORMAT, "name": name, "uid": uid, "gid": uid, "profile": "default"}
        (records / f"{name}.json").write_text(json.dumps({**record, "created_at": 1.0, "state": "ready"}))
        home = place / "state" / name
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)


def run_by_turns(few: Client, many: Client, pairs: int) -> tuple[list[float], list[float]]:
    alone, crowded = [], []
    for _ in range(pairs):
        alone.append(timed(lambda: few.run("new-0", ["/bin/true"])))
        crowded.append(timed(lambda: many.run("new-0", ["/bin/true"])))
    return alone, crowded


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def session_rows(figures: SessionFigures) -> list[tuple[str, str, str]]:
    """What was measured, the median, and what is to be reached."""
    ratio = statistics.median(
        crowded / alone for alone, crowded in zip(figures.run_alone, figures.run_crowded, strict=True)
    )
    return [
        ("session.ensure, new", _ms(figures.new), "< 250 ms"),
        ("session.ensure, existing", _ms(figures.existing), "< 30 ms"),
        (f"session.list of {figures.crowd}", _ms(figures.lists), "< 200 ms"),
        (f"start-up recovery of {figures.crowd}", f"{figures.recovery:.3f} s", "< 3 s"),
        ("process.run, one session", _ms(figures.run_alone), "-"),
        (f"process.run beside {figures.crowd}", _ms(figures.run_crowded), f"{ratio:.3f} × (median of pairs)"),
    ]


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f} ms"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="coworkd-bench-") as directory:
        for row in session_rows(measure_sessions(Path(directory))):
            print("{:36}{:>12}  {}".format(*row))


if __name__ == "__main__":
    main()
