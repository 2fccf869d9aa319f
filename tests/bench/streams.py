"""How fast output reaches a client where many commands write at once, and where one does beside a plain loop.

A round is the same number of bytes, written by one command, then shared among 16, then among 64, all attached to one link. Every command
is the one program that will write, waits for a line before it does, and for the end of its stdin when it has: no start, no exec and no
end of a sandbox is timed, of which the many have 64 and the one has one. Rounds take turns; a ratio is of neighbours. Beside it the same
ratio of a plain loop (`sharing_peer`) that keeps as much: what this machine gives.

Run alone: `python -m tests.bench.streams [--quick]`; needs root.
"""

from __future__ import annotations

import sys
import time

import trio
import trio.testing
from msgspec import Struct

from coworkd.client import aio
from coworkd.client.aio_process import AsyncProcess
from tests.bench.figures import paired_ratio, spread
from tests.bench.guest import SESSION, Guest, open_guest, temporary_directory
from tests.bench.sharing_peer import compose_writer, share_plainly
from tests.bench.spawning import Pairs
from tests.bench.streaming import AT_LEAST, judge_streaming, measure_courses
from tests.bench.tables import MIB, Verdict, at_least, ratio, table, verdict_table

COUNTS = (16, 64)
SHARING_HEAD = ("streams", "one", "together", "together / one", "of a plain loop")


class Sharing(Struct, frozen=True, kw_only=True):
    """Seconds for `size_bytes`: `pairs.base_s` from one command, `pairs.other_s` shared among `commands`."""

    commands: int
    size_bytes: int
    pairs: Pairs
    plain: Pairs
    """The same of the plain loop."""


def measure_sharing(guest: Guest, *, size_bytes: int, rounds: int) -> list[Sharing]:
    """`size_bytes` is a multiple of 64 blocks. One A B A C round after another, plain ones between them, the first unmeasured."""
    shared = [
        Sharing(
            commands=count,
            size_bytes=size_bytes,
            pairs=Pairs(base_s=[], other_s=[]),
            plain=Pairs(base_s=[], other_s=[]),
        )
        for count in COUNTS
    ]
    trio.run(_together, guest.uri, 1, size_bytes // 8)
    for _ in range(rounds):
        for each in shared:
            each.pairs.base_s.append(trio.run(_together, guest.uri, 1, size_bytes))
            each.pairs.other_s.append(trio.run(_together, guest.uri, each.commands, size_bytes))
            each.plain.base_s.append(share_plainly(1, size_bytes))
            each.plain.other_s.append(share_plainly(each.commands, size_bytes))
    return shared


async def _together(uri: str, commands: int, size_bytes: int) -> float:
    """Seconds from the word to begin until the last byte of the last one."""
    part = size_bytes // commands
    async with await aio.connect(uri) as client:
        await client.session_ensure(name=SESSION)
        processes = [await client.start(SESSION, compose_writer(part), stdin=True) for _ in range(commands)]
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(_read, process, part)
            await trio.testing.wait_all_tasks_blocked()
            began = time.perf_counter()
            for process in processes:
                nursery.start_soon(process.write_stdin, b"go\n")
        took = time.perf_counter() - began
        for process in processes:
            await process.close_stdin()
            await _read_end(process)
    return took


async def _read(process: AsyncProcess, wanted_bytes: int) -> None:
    received = 0
    while received < wanted_bytes:
        piece = await process.read()
        if piece is None:
            raise RuntimeError(f"{received} bytes came of process {process.id}, not {wanted_bytes}")
        received += len(piece.data)


async def _read_end(process: AsyncProcess) -> None:
    async for piece in process:
        if piece.data:
            raise RuntimeError(f"more bytes came of process {process.id} than it was to write")


def compose_sharing_rows(shared: list[Sharing]) -> list[tuple[str, ...]]:
    return [
        (
            str(each.commands),
            f"{each.size_bytes / spread(each.pairs.base_s).median / MIB:.0f} MiB/s",
            f"{each.size_bytes / spread(each.pairs.other_s).median / MIB:.0f} MiB/s",
            ratio(paired_ratio(each.pairs.base_s, each.pairs.other_s)),
            ratio(paired_ratio(each.plain.base_s, each.plain.other_s)),
        )
        for each in shared
    ]


def judge_sharing(shared: list[Sharing]) -> list[Verdict]:
    verdicts = []
    for each in shared:
        measured = paired_ratio(each.pairs.base_s, each.pairs.other_s)
        verdicts.append(at_least(f"{each.commands} streams together × one stream", measured, AT_LEAST))
    return verdicts


def main() -> None:
    quick = "--quick" in sys.argv
    size_bytes, rounds = (64 * MIB, 3) if quick else (512 * MIB, 7)
    with temporary_directory() as directory, open_guest(directory) as guest, guest.connect() as client:
        client.session_ensure(name=SESSION)
        shared = measure_sharing(guest, size_bytes=size_bytes, rounds=rounds)
        streamed = measure_courses(client, size_bytes=size_bytes, pairs=rounds)
    print(table(SHARING_HEAD, compose_sharing_rows(shared)))
    print()
    print(verdict_table([*judge_sharing(shared), *judge_streaming(streamed)]))


if __name__ == "__main__":
    main()
