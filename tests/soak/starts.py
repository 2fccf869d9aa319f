"""`python -m tests.soak.starts`: ten thousand starts leave nothing. Prints what every program held before and after, as root.

COWORKD_STARTS says how many. Commands of each kind, eight at a time: runs, commands that do not exist, pipes, terminals that are killed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import trio

from coworkd.client import aio
from coworkd.model.errors import StartFailed
from tests.root.accounting import IDLE_THREADS, SETTLE_S, grown
from tests.root.conftest import running_daemon
from tests.root.live import client_of, exited
from tests.soak.keeper import Keeper
from tests.soak.statement import ROOM_KIB

CONCURRENCY = 8
WARM_UP = 300
"""Rings and tables of a bounded size go on to fill behind that; `ROOM_KIB` is for them."""
_SESSION = "starts"


def run_many(uri: str, session: str, count: int, *, within_s: float) -> None:
    """`count` commands, of which a tenth does not exist. AssertionError where one does not end as it must."""

    async def all_of_them() -> None:
        async with await aio.connect(uri) as client:
            left = iter(range(count))

            async def runner() -> None:
                for number in left:
                    if number % 10 == 3:
                        with contextlib.suppress(StartFailed):
                            await client.run(session, ["no-such-command"])
                    elif number % 10 == 5:
                        async with await client.start(session, ["cat"], stdin=True) as process:
                            await process.communicate(b"x" * 1000)
                    elif number % 50 == 7:
                        async with await client.start(session, ["sleep", "9"], tty=(24, 80)):
                            pass  # leaving kills it
                    else:
                        assert (await client.run(session, ["true"])).exit == exited(0)

            with trio.fail_after(within_s):
                async with trio.open_nursery() as nursery:
                    for _ in range(CONCURRENCY):
                        nursery.start_soon(runner)

    trio.run(all_of_them)


def measure(directory: Path, count: int) -> tuple[list[str], list[str]]:
    """What to print, and why it did not pass."""
    with Keeper(lambda: running_daemon(directory / "coworkd")) as keeper, client_of(keeper.daemon) as client:
        client.session_ensure(name=_SESSION)
        run_many(keeper.daemon.uri, _SESSION, WARM_UP, within_s=120)
        books = keeper.books()
        before, memory = books.look_when_steady(), books.memory_kib()
        started = time.monotonic()
        run_many(keeper.daemon.uri, _SESSION, count, within_s=60 + count / 10)
        took_s = time.monotonic() - started
        until = time.monotonic() + SETTLE_S
        while (more := _more(before, after := books.look())) and time.monotonic() < until:
            time.sleep(0.2)
        later = books.memory_kib()
        left = client.process_list().processes
    said = [f"{count:,} starts in {took_s:.0f} s, {count / took_s:.0f} a second", f"{'':40}{'before':>10}{'after':>10}"]
    said += [f"{name:40}{before.get(name, 0):>10}{after.get(name, 0):>10}" for name in sorted({*before, *after})]
    said += [f"{name + ' KiB':40}{memory.get(name, 0):>10,}{later.get(name, 0):>10,}" for name in sorted(later)]
    wrong = [f"{name}: {was} before, {now} after" for name, (was, now) in more.items()]
    wrong += [
        f"{name} grew by {later[name] - memory.get(name, 0)} KiB"
        for name in later
        if later[name] - memory.get(name, 0) > ROOM_KIB[name]
    ]
    wrong += [f"{len(left)} processes are kept"] if left else []
    return said, wrong


def _more(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    return {name: counts for name, counts in grown(before, after).items() if name not in IDLE_THREADS}


def main() -> int:
    count = int(os.environ.get("COWORKD_STARTS", "10000"))
    with tempfile.TemporaryDirectory(prefix="coworkd-starts-") as directory:
        said, wrong = measure(Path(directory), count)
    print(
        "\n".join(
            [*said, *(f"NOT PASSED: {each}" for each in wrong or []), *([] if wrong else ["passed: nothing is left"])]
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
