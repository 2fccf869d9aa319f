"""One soak: a mixed load with faults, looks at what is held while all stand still, and the statement about it.

The second half goes without the death of coworkd, so that one of them grows old. What it remembers of calls is filled up at once, what
fills more slowly has until the last third: looked at once a part, memory has to be flat there. All of it runs in the lab of
`tests.root.lab`, from which no packet leaves the machine; where there is none, `way_out=False` leaves egress out.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio

from coworkd.client import aio
from coworkd.model.errors import NotFound
from coworkd.rpc.replay import ENTRY_BYTES, KEEP_BYTES
from tests.root.conftest import running_daemon
from tests.root.egress_room import PROFILE, write_policies
from tests.root.lab import open_lab
from tests.soak.faults import Faults
from tests.soak.keeper import Keeper, Running
from tests.soak.load import OUT, Load
from tests.soak.statement import Look, Statement

SESSIONS = ("soak-0", "soak-1", "soak-2")
SPANS = ((0.2, True), (0.1, True), (0.1, True), (0.1, True), (1 / 12, False), (1 / 12, False), *[(1 / 30, False)] * 10)
"""Parts of the time, each with a look behind it, and whether coworkd is killed in them. The first is for warming up."""
FULL_LOOKS = 10
"""The last third's."""
SHORT_SPANS, SHORT_MINUTES = ((0.2, True), (0.4, True), (0.4, False)), 0.9
FILLERS = 8
FAULT_EVERY_S = 2.0
SETTLE_S = 3.0
"""For workers that serve a moment, and what is built ahead."""


@contextlib.contextmanager
def open_place(directory: Path, *, way_out: bool) -> Iterator[Running]:
    """What starts a coworkd in `directory`, in the lab where there is to be a way out."""
    policies = write_policies(directory / "policies")
    if not way_out:
        yield partial(running_daemon, directory / "coworkd", "--policies", str(policies))
        return
    with open_lab(directory / "lab") as lab:
        yield partial(lab.running_daemon, directory / "coworkd", "--policies", str(policies))


def soak(directory: Path, *, minutes: float, seed: int | None = None, way_out: bool = True) -> Statement:
    """Soak for that long. Everything it made is gone afterwards but what `directory` holds."""
    chosen = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    with open_place(directory, way_out=way_out) as running, Keeper(running) as keeper:
        return trio.run(_soak, keeper, directory, minutes, chosen, way_out)


async def _soak(keeper: Keeper, directory: Path, minutes: float, seed: int, way_out: bool) -> Statement:
    folder = directory / "folder"
    folder.mkdir()
    (folder / "file").write_text("in the folder\n")
    load = Load(keeper.daemon.uri, seed, folder, way_out=way_out)
    faults = Faults(keeper, load, seed, way_out=way_out)
    async with await aio.connect(load.uri) as client:
        for name in SESSIONS:
            await client.session_ensure(name=name, profile=PROFILE)
    began = trio.current_time()
    looks: list[Look] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        short = minutes < SHORT_MINUTES
        grows_old = False
        for part, kill_coworkd in SHORT_SPANS if short else SPANS:
            if not (kill_coworkd or grows_old or short):
                await _fill_answers(load.uri)
            grows_old = not kill_coworkd
            load.go()
            await _disturb(faults, part * minutes * 60, kill_coworkd=kill_coworkd)
            if not await load.stand():
                nursery.cancel_scope.cancel()
                break
            await _bring_alike(load, way_out=way_out)
            looks.append(await trio.to_thread.run_sync(_look, keeper, trio.current_time() - began))
        else:
            load.stop()
    wrong = list(load.wrong)
    async with await aio.connect(load.uri) as client:
        if not (await client.audit_verify()).ok:
            wrong.append("the audit log does not verify")
        if left := (await client.process_list()).processes:
            wrong.append(
                f"{len(left)} processes are left: {[(each.process, each.state, each.exit) for each in left][:5]}"
            )
        for name in SESSIONS:
            await client.session_delete(session=name, force=True)
    full = 0 if minutes < SHORT_MINUTES else FULL_LOOKS
    return Statement(
        seed=seed,
        minutes=minutes,
        looks=looks,
        full=full,
        faults=faults.counts,
        outcomes=load.outcomes,
        wrong=wrong,
    )


async def _fill_answers(uri: str) -> None:
    """Call until as many answers are kept as can be: by the load alone that may take ten minutes."""
    left = iter(range(KEEP_BYTES // ENTRY_BYTES))

    async def filler() -> None:
        for number in left:
            with contextlib.suppress(NotFound):
                await client.process_forget(process="none", request_id=f"fill-{number}")

    async with await aio.connect(uri) as client, trio.open_nursery() as nursery:
        for _ in range(FILLERS):
            nursery.start_soon(filler)


async def _disturb(faults: Faults, span_s: float, *, kill_coworkd: bool) -> None:
    until = trio.current_time() + span_s
    while trio.current_time() < until:
        await trio.sleep(min(FAULT_EVERY_S, max(0.1, until - trio.current_time())))
        await faults.one(kill_coworkd=kill_coworkd)


async def _bring_alike(load: Load, *, way_out: bool) -> None:
    """The same before every look: each session was just used, what was killed or cut is there again, what serves a moment has gone.

    A command that was forgotten is there again where coworkd was killed between its answer and the launcher's forgetting.
    """
    for client in load.clients:
        await client.ping()
    async with await aio.connect(load.uri) as client:
        for each in (await client.process_list()).processes:
            if each.state == "exited":
                await client.process_forget(process=each.process)
        for name in SESSIONS:
            await client.run(name, ["true"])
        while way_out and not (await client.egress_status()).pid:
            await trio.sleep(0.1)
        if way_out:  # so that it has the thread that looks names up
            await client.run(SESSIONS[0], OUT)
    await trio.sleep(SETTLE_S)


def _look(keeper: Keeper, at_s: float) -> Look:
    books = keeper.books()
    held = books.look_when_steady()
    return Look(at_s=at_s, held=held, memory_kib=books.memory_kib())
