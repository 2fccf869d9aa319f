"""What a session's folders cost a command, and a folder its session: starts with none, one and four of them, by turns; and mounting.

`measure_folder_starts` gives seconds, round by round; `compose_start_rows` and `judge_folder_starts` make rows and verdicts of them.
By itself: `python -m tests.bench.folders_start [--quick]`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from coworkd.client.sync import Client
from coworkd.model.policy import FolderMode
from coworkd.model.session import FolderGrant
from tests.bench.figures import spread
from tests.bench.guest import open_guest, temporary_directory
from tests.bench.tables import Verdict, at_most, table, verdict_table

TARGET_S = 0.001
"""What a `ro` or `rwd` folder may cost a command."""
COMMAND = "/bin/true"
_WARM_UP = 5
_SETTLE_S = 0.005
_NONE = "no folder"
_SETS: dict[str, tuple[FolderMode, ...]] = {
    _NONE: (),
    "one ro": ("ro",),
    "one rwd": ("rwd",),
    "one rw": ("rw",),
    "four (2 ro, 2 rwd)": ("ro", "ro", "rwd", "rwd"),
}
_MODES: tuple[FolderMode, ...] = ("ro", "rwd", "rw", "staged")
_JUDGED = ("one ro", "one rwd")


class FolderStarts(Struct, frozen=True, kw_only=True):
    """Seconds of `process.run` by the session's folders, round by round, and of one `folder.mount` and one `folder.unmount` by mode."""

    runs: dict[str, list[float]]
    mounts: dict[str, list[float]]
    unmounts: dict[str, list[float]]


def measure_folder_starts(client: Client, sources: Path, *, rounds: int, mounts: int) -> FolderStarts:
    """On a coworkd of one's own; `sources` is an empty directory. Leaves no session."""
    sessions = {}
    for number, (label, modes) in enumerate(_SETS.items()):
        grants = [_grant(sources / f"s{number}-{each}", mode) for each, mode in enumerate(modes)]
        client.session_ensure(name=f"folders-{number}", folders=grants)
        sessions[label] = f"folders-{number}"
    runs: dict[str, list[float]] = {label: [] for label in _SETS}
    for turn in range(rounds + _WARM_UP):
        for label, session in sessions.items():
            time.sleep(_SETTLE_S)
            took = _timed(partial(client.run, session, [COMMAND]))
            if turn >= _WARM_UP:
                runs[label].append(took)
    came: dict[str, list[float]] = {mode: [] for mode in _MODES}
    went: dict[str, list[float]] = {mode: [] for mode in _MODES}
    for turn in range(mounts):
        for mode in _MODES:
            grant = _grant(sources / f"m-{mode}-{turn}", mode)
            into = sessions[_NONE]
            verb = partial(client.folder_mount, session=into, name=grant.name, source=grant.source, mode=grant.mode)
            came[mode].append(_timed(verb))
            went[mode].append(_timed(partial(client.folder_unmount, session=into, name=grant.name)))
    for session in sessions.values():
        client.session_delete(session=session)
    return FolderStarts(runs=runs, mounts=came, unmounts=went)


def compose_start_rows(starts: FolderStarts) -> list[tuple[str, ...]]:
    """Label, median and quartiles in ms, and what is more than without a folder (the median of the rounds' differences)."""
    rows: list[tuple[str, ...]] = []
    for label, seconds in starts.runs.items():
        figures = spread(seconds)
        more = _more(starts, label)
        rows.append(
            (
                f"a command, {label}",
                f"{figures.median * 1e3:.2f} ms",
                f"{figures.lower * 1e3:.2f} – {figures.upper * 1e3:.2f}",
                "" if label == _NONE else f"{more * 1e3:+.2f} ms",
            )
        )
    for verb, by_mode in (("mount", starts.mounts), ("unmount", starts.unmounts)):
        for mode, seconds in by_mode.items():
            figures = spread(seconds)
            rows.append(
                (
                    f"folder.{verb}, {mode}",
                    f"{figures.median * 1e3:.2f} ms",
                    f"{figures.lower * 1e3:.2f} – {figures.upper * 1e3:.2f}",
                    "",
                )
            )
    return rows


def judge_folder_starts(starts: FolderStarts) -> list[Verdict]:
    return [
        at_most(
            f"what a folder costs a command, {label}",
            _more(starts, label),
            TARGET_S,
            f"{_more(starts, label) * 1e3:+.2f} ms",
            f"{TARGET_S * 1e3:.0f} ms",
        )
        for label in _JUDGED
    ]


def _more(starts: FolderStarts, label: str) -> float:
    pairs = zip(starts.runs[label], starts.runs[_NONE], strict=True)
    return statistics.median(mine - none for mine, none in pairs)


def _grant(source: Path, mode: FolderMode) -> FolderGrant:
    source.mkdir()
    (source / "file").write_bytes(b"x")
    return FolderGrant(source=str(source), name=source.name, mode=mode)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    quick = "--quick" in sys.argv
    with temporary_directory() as directory:
        directory.chmod(0o755)
        sources = directory / "sources"
        sources.mkdir()
        with open_guest(directory) as guest, guest.connect() as client:
            starts = measure_folder_starts(client, sources, rounds=20 if quick else 200, mounts=5 if quick else 20)
    print(table(("", "median", "quartiles", "more"), compose_start_rows(starts)))
    print()
    print(verdict_table(judge_folder_starts(starts)))


if __name__ == "__main__":
    main()
