"""What one troublemaker costs everybody else: `process.run` of /bin/true, and a stream of 64 MiB, alone and beside it, by turns.

Troublemakers
- a reader that stops: a link is attached to a command that floods, and reads nothing.
- a flood: a command writes as fast as it can, and nobody is attached.
- an unread stdin: a host offers input without end to a command that reads none.
- a hung share: a command and a `file.list` wait for a folder whose server is stopped.

A flood takes a processor while it lasts, whoever is fair: what a busy loop that writes nothing costs (`a busy loop`) is beside it, for
that is what a second command costs on this machine.

Before each figure, alone and beside, is one that is thrown away: both begin with the same just done. Else the start of the troublemaker,
and the sandbox that is made ahead in its place, would count as its trouble; beside a `sleep` a stream took 1.08 then. By itself:
`python -m tests.bench.fairness [--quick] [--only NAME]`, the name as above.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError
from coworkd.model.names import OsBytes
from coworkd.model.session import FolderGrant
from tests.bench.figures import paired_ratio
from tests.bench.guest import SESSION, Guest, open_guest, temporary_directory
from tests.bench.spawning import Pairs
from tests.bench.tables import MIB, Verdict, at_most, ratio, table, verdict_table
from tests.root.live import children_of, links_of

TARGET_RATIO = 1.10
STREAM_BYTES = 64 * MIB
OTHER = "trouble"
HUNG = "hung"
_RUNS = 5
"""So many starts are one figure."""

Trouble = Callable[[Guest], "contextlib.AbstractContextManager[None]"]


class Fairness(Struct, frozen=True, kw_only=True):
    """Seconds alone and beside one troublemaker."""

    name: str
    runs: Pairs
    streams: Pairs


def measure_fairness(guest: Guest, client: Client, *, pairs: int, only: str | None = None) -> list[Fairness]:
    """On a guest with the sessions `SESSION`, `OTHER` and `HUNG`, the last with a folder `shared`."""
    return [
        _measure(guest, client, name, trouble, pairs=pairs)
        for name, trouble in TROUBLES.items()
        if only in (None, name)
    ]


def _measure(guest: Guest, client: Client, name: str, trouble: Trouble, *, pairs: int) -> Fairness:
    measured = Fairness(name=name, runs=Pairs(base_s=[], other_s=[]), streams=Pairs(base_s=[], other_s=[]))
    for turn in range(pairs + 1):
        alone = _second(client)
        with trouble(guest):
            beside = _second(client)
        if turn:
            for seconds, (mine, theirs) in zip(
                (measured.runs, measured.streams), zip(alone, beside, strict=True), strict=True
            ):
                seconds.base_s.append(mine)
                seconds.other_s.append(theirs)
    return measured


def compose_fairness_rows(measured: list[Fairness]) -> list[tuple[str, ...]]:
    """Label, and what each course takes beside the troublemaker to alone."""
    return [
        (
            each.name,
            ratio(paired_ratio(each.runs.other_s, each.runs.base_s)),
            ratio(paired_ratio(each.streams.other_s, each.streams.base_s)),
        )
        for each in measured
    ]


def judge_fairness(measured: list[Fairness]) -> list[Verdict]:
    """A tenth is the most that anybody may cost the others."""
    verdicts = []
    for each in measured:
        if each.name == BUSY:
            continue
        for what, pairs in (("a start", each.runs), ("a stream", each.streams)):
            figures = paired_ratio(pairs.other_s, pairs.base_s)
            shown = f"{what} beside {each.name}, to alone"
            verdicts.append(at_most(shown, figures.median, TARGET_RATIO, ratio(figures), f"{TARGET_RATIO:.2f}"))
    return verdicts


def _second(client: Client) -> tuple[float, float]:
    _run(client)
    _stream(client)
    return _run(client), _stream(client)


def _run(client: Client) -> float:
    began = time.perf_counter()
    for _ in range(_RUNS):
        client.run(SESSION, ["/bin/true"])
    return time.perf_counter() - began


def _stream(client: Client) -> float:
    received, began = 0, time.perf_counter()
    argv = ["/bin/dd", "if=/dev/zero", "bs=64K", f"count={STREAM_BYTES // 65536}", "status=none"]
    with client.start(SESSION, argv) as process:
        for piece in process:
            received += len(piece.data)
        took = time.perf_counter() - began
    if received != STREAM_BYTES:
        raise RuntimeError(f"{received} bytes came, not {STREAM_BYTES}")
    return took


# -- troublemakers ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _stopped_reader(guest: Guest) -> Iterator[None]:
    with guest.connect() as link, link.start(OTHER, ["/usr/bin/yes"], on_full="block"):
        yield


@contextlib.contextmanager
def _flood(guest: Guest) -> Iterator[None]:
    with guest.connect() as link, link.start(OTHER, ["/usr/bin/yes"], attach=False, on_full="drop_oldest"):
        yield


@contextlib.contextmanager
def _busy(guest: Guest) -> Iterator[None]:
    with guest.connect() as link, link.start(OTHER, ["/bin/sh", "-c", "while :; do :; done"], attach=False):
        yield


@contextlib.contextmanager
def _unread_stdin(guest: Guest) -> Iterator[None]:
    over = threading.Event()
    with guest.connect() as link, link.start(OTHER, ["/bin/sleep", "1000"], stdin=True) as process:

        def offer() -> None:
            with contextlib.suppress(CoworkError):
                while not over.is_set():
                    process.write_some(bytes(256 * 1024))

        writer = threading.Thread(target=offer)
        writer.start()
        try:
            yield
        finally:
            over.set()
            writer.join()


@contextlib.contextmanager
def _hung_share(guest: Guest) -> Iterator[None]:
    with guest.connect() as link, guest.connect() as asking:
        (server,) = (pid for pid in children_of(link.info().launcher_pid or 0) if "/dev/fuse" in links_of(pid))
        os.kill(server, signal.SIGSTOP)
        process = link.start(HUNG, ["/bin/ls", "mnt/shared/below"], attach=False)

        def ask() -> None:
            with contextlib.suppress(CoworkError):
                asking.file_list(session=HUNG, path=OsBytes(b"mnt/shared"))

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)
            asker.join()
            process.wait(20)
            process.forget()


BUSY = "a busy loop"
TROUBLES: dict[str, Trouble] = {
    "a reader that stops": _stopped_reader,
    "a flood": _flood,
    BUSY: _busy,
    "an unread stdin": _unread_stdin,
    "a hung share": _hung_share,
}


def open_sessions(client: Client, directory: Path) -> None:
    """The sessions that are measured in, and troubled."""
    (directory / "shared" / "below").mkdir(parents=True)
    for name in (SESSION, OTHER):
        client.session_ensure(name=name)
    client.session_ensure(name=HUNG, folders=[FolderGrant(name="shared", source=str(directory / "shared"), mode="rw")])


def main() -> None:
    pairs = 3 if "--quick" in sys.argv else 15
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    if only not in (None, *TROUBLES):
        raise SystemExit(f"{only} is none of {', '.join(TROUBLES)}")
    with temporary_directory() as directory, open_guest(directory) as guest, guest.connect() as client:
        open_sessions(client, directory)
        measured = measure_fairness(guest, client, pairs=pairs, only=only)
    print(table(("beside", "5 starts, to alone (95 %)", "64 MiB, to alone (95 %)"), compose_fairness_rows(measured)))
    print()
    print(verdict_table(judge_fairness(measured)))


if __name__ == "__main__":
    main()
