"""What a command's start costs in a launcher that holds many open sessions, beside one that holds a single one, by turns.

`measure_crowded` gives seconds from the order to the exit, pair by pair; `compose_crowded_rows` and `judge_crowded` make rows and a verdict
of them. By itself: `python -m tests.bench.crowded [--quick]`. Both launchers do the same; only what else they hold differs.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from msgspec import Struct

from coworkd.model import launch
from tests.bench.figures import paired_ratio, spread
from tests.bench.guest import temporary_directory
from tests.bench.tables import Verdict, at_most, ratio, table, verdict_table
from tests.root.launcher_talk import UID, Started, Talk, open_launcher, session_request, spawn_request

SESSIONS = 2_000
TARGET_RATIO = 1.10
"""No slower, as far as a ratio of medians can tell on a shared machine."""
_WARM_UP = 5
_SETTLE_S = 0.05
"""The next standby is made in it."""


class Crowded(Struct, frozen=True, kw_only=True):
    """Seconds of a command's start and end, pair by pair, and of the opening of one session."""

    sessions: int
    alone_s: list[float]
    crowded_s: list[float]
    open_s: float


def measure_crowded(directory: Path, *, sessions: int, pairs: int) -> Crowded:
    """On two launchers of one's own below `directory`, which is empty."""
    for name in ("alone", "crowded"):
        (directory / name).mkdir(mode=0o755)
    with open_launcher(directory / "alone") as one, open_launcher(directory / "crowded") as other:
        alone, crowded = _ready(one), _ready(other)
        began = time.perf_counter()
        for number in range(1, sessions):
            home = directory / "crowded" / f"home-{number}"
            _open(crowded, session_request(home, name=f"s{number}", uid=UID + number))
        open_s = (time.perf_counter() - began) / max(1, sessions - 1)
        measured = Crowded(sessions=sessions, alone_s=[], crowded_s=[], open_s=open_s)
        for turn in range(pairs + _WARM_UP):
            for talk, seconds in ((alone, measured.alone_s), (crowded, measured.crowded_s)):
                took = _once(talk)
                if turn >= _WARM_UP:
                    seconds.append(took)
        return measured


def compose_crowded_rows(measured: Crowded) -> list[tuple[str, ...]]:
    """Label, median, and what it is to the other."""
    alone, crowded = spread(measured.alone_s), spread(measured.crowded_s)
    return [
        ("a command, one session open", f"{alone.median * 1e3:.2f} ms", ""),
        (
            f"a command, {measured.sessions} sessions open",
            f"{crowded.median * 1e3:.2f} ms",
            ratio(paired_ratio(measured.crowded_s, measured.alone_s)),
        ),
        ("opening one of them", f"{measured.open_s * 1e3:.2f} ms", ""),
    ]


def judge_crowded(measured: Crowded) -> Verdict:
    figures = paired_ratio(measured.crowded_s, measured.alone_s)
    what = f"a start with {measured.sessions} sessions open, to one with a single one"
    return at_most(what, figures.median, TARGET_RATIO, ratio(figures), f"{TARGET_RATIO:.2f}")


def _ready(started: Started) -> Talk:
    talk = started.ready()
    _open(talk, session_request(started.directory / "home"))
    return talk


def _open(talk: Talk, request: launch.OpenSession) -> None:
    answer = talk.ask(request)
    if not isinstance(answer, launch.Opened):
        raise RuntimeError(f"session {request.session} was not opened: {answer}")
    talk.drop_fds()


def _once(talk: Talk) -> float:
    time.sleep(_SETTLE_S)
    began = time.perf_counter()
    notice, _ = talk.run(spawn_request(["/bin/true"]))
    took = time.perf_counter() - began
    if not isinstance(notice, launch.Exited) or notice.code != 0:
        raise RuntimeError(f"the command ended with {notice}")
    talk.ask(launch.Forget(id=0, process="p1"))
    return took


def main() -> None:
    quick = "--quick" in sys.argv
    with temporary_directory() as directory:
        os.chmod(directory, 0o755)
        measured = measure_crowded(directory, sessions=200 if quick else SESSIONS, pairs=20 if quick else 100)
    print(table(("", "median", "ratio"), compose_crowded_rows(measured)))
    print()
    print(verdict_table([judge_crowded(measured)]))


if __name__ == "__main__":
    main()
