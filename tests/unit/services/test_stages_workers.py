from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from coworkd.model.errors import InternalError, Unavailable
from coworkd.model.stage import ForgetStage, Prepared, Progress, StageForgotten
from coworkd.services.stages_workers import WORKER_LIMIT, SourceSilent, StageWorkers
from tests.unit.services.process_house import in_trio, jump, settle
from tests.unit.services.stage_house import StageLauncher

REQUEST = ForgetStage(id=0, path=b"/nothing/at/all")
QUIET_S = 10.0


@asynccontextmanager
async def serving(launcher: StageLauncher) -> AsyncIterator[StageWorkers]:
    workers = StageWorkers(launcher)
    async with trio.open_nursery() as nursery:
        await nursery.start(workers.serve)
        yield workers
        nursery.cancel_scope.cancel()
    launcher.close()


def hang(connection: socket.socket) -> None:
    while connection.recvmsg(70_000)[0]:
        pass


async def forget(workers: StageWorkers) -> object:
    return await workers.ask(REQUEST, StageForgotten, quiet_s=QUIET_S)


@in_trio
async def test_a_worker_that_is_idle_is_asked_again() -> None:
    launcher = StageLauncher()
    async with serving(launcher) as workers:
        for _ in range(3):
            assert await forget(workers) == StageForgotten(id=_ + 1, freed_bytes=0)
        assert launcher.started == 1


@in_trio
async def test_no_more_than_a_few_work_at_once() -> None:
    launcher = StageLauncher()
    launcher.serve = hang

    async def ask() -> None:
        with pytest.raises(SourceSilent):
            await forget(workers)

    async with serving(launcher) as workers, trio.open_nursery() as nursery:
        for _ in range(WORKER_LIMIT + 2):
            nursery.start_soon(ask)
        await settle()
        assert launcher.started == WORKER_LIMIT
        jump(QUIET_S)
        await settle()
        assert launcher.started == WORKER_LIMIT + 2
        jump(QUIET_S)
    assert sorted(launcher.killed) == [1, 2, 3, 4, 5, 6]


@in_trio
async def test_one_that_tells_of_progress_is_waited_for() -> None:
    launcher = StageLauncher()
    go = socket.socketpair()
    answered: list[object] = []

    def slow(connection: socket.socket) -> None:
        connection.recvmsg(70_000)
        for _ in range(3):
            go[1].recv(1)
            connection.send(msgspec.msgpack.encode(Progress(steps=1)))
        go[1].recv(1)
        connection.send(msgspec.msgpack.encode(StageForgotten(id=1, freed_bytes=7)))
        hang(connection)

    async def ask() -> None:
        answered.append(await forget(workers))

    launcher.serve = slow
    async with serving(launcher) as workers, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for _ in range(4):
            await settle()
            jump(QUIET_S * 0.9)
            go[0].send(b"x")
            await settle()
    assert answered == [StageForgotten(id=1, freed_bytes=7)]
    for end in go:
        end.close()


@in_trio
async def test_one_whose_caller_has_gone_is_ended() -> None:
    launcher = StageLauncher()
    launcher.serve = hang
    async with serving(launcher) as workers:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget, workers)
            await settle()
            nursery.cancel_scope.cancel()
        assert launcher.killed == [1]


@in_trio
async def test_one_that_ends_is_told_and_another_is_started() -> None:
    launcher = StageLauncher()
    served, launcher.serve = launcher.serve, lambda connection: None
    async with serving(launcher) as workers:
        with pytest.raises(Unavailable, match="try again"):
            await forget(workers)
        launcher.serve = served
        assert isinstance(await forget(workers), StageForgotten)


@in_trio
async def test_an_answer_of_another_kind_is_our_own_fault() -> None:
    async with serving(StageLauncher()) as workers:
        with pytest.raises(InternalError, match="StageForgotten"):
            await workers.ask(REQUEST, Prepared, quiet_s=QUIET_S)


@in_trio
async def test_before_it_serves_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not ready"):
        await forget(StageWorkers(StageLauncher()))


@in_trio
async def test_one_without_work_is_let_go() -> None:
    launcher = StageLauncher()
    async with serving(launcher) as workers:
        await forget(workers)
        jump(61)
        await settle()
        jump(61)
        await settle()
        await forget(workers)
        assert launcher.started == 2
