"""`services.process_patience`: who has not begun in time is told of, once, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import StartFailed
from coworkd.model.names import OsBytes
from coworkd.services.process_limits import ProcessLimits
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_patience import Patience
from tests.unit.services.process_house import in_trio, jump, open_house, settle
from tests.unit.services.test_process_live import make_process

LIMIT_S = 30.0


@asynccontextmanager
async def open_patience() -> AsyncIterator[tuple[Patience, list[LiveProcess], trio.Nursery]]:
    """One that is served, whom it finds too late, and a nursery for whoever tells it something."""
    late: list[LiveProcess] = []
    patience = Patience(LIMIT_S, late.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patience.serve)
        yield patience, late, nursery
        nursery.cancel_scope.cancel()


@in_trio
async def test_each_that_has_not_begun_is_told_of_when_its_own_time_is_over() -> None:
    first, begun, blind, gone, last = (make_process(name) for name in ("first", "begun", "blind", "gone", "last"))
    async with open_patience() as (patience, late, _):
        for process in (first, begun, blind, gone):
            patience.hold(process)
        begun.settled.set()
        blind.settled.set()
        blind.expect_terminal()
        assert patience.let_go(gone)
        await settle()
        jump(LIMIT_S / 2)
        patience.hold(last)
        await settle()
        assert late == []
        jump(LIMIT_S / 2)
        await settle()
        assert late == [first, blind]
        jump(LIMIT_S / 2)
        await settle()
        assert late == [first, blind, last]
        assert [patience.let_go(process) for process in (first, begun, last)] == [False, True, False]
        assert patience.let_go(first)  # what it was is forgotten with it


@in_trio
async def test_time_runs_again_after_there_was_nobody() -> None:
    async with open_patience() as (patience, late, _):
        await settle()
        jump(LIMIT_S * 2)
        one = make_process("one")
        patience.hold(one)
        await settle()
        assert late == []
        jump(LIMIT_S)
        await settle()
        assert late == [one]


@in_trio
async def test_news_that_is_there_when_the_time_is_found_to_be_over_comes_first() -> None:
    async def tell(process: LiveProcess) -> None:
        await trio.sleep(LIMIT_S)
        process.settled.set()

    async with open_patience() as (patience, late, nursery):
        for number in range(30):  # who of the two has the first turn is chance
            process = make_process(str(number))
            patience.hold(process)
            nursery.start_soon(tell, process)
            await settle()
            jump(LIMIT_S)
            await settle()
            assert patience.let_go(process)
        assert late == []


@in_trio
async def test_news_comes_first_even_where_coworkd_stood_still_in_the_turn_in_which_it_began_to_wait() -> None:
    async def tell(process: LiveProcess) -> None:
        await trio.lowlevel.checkpoint()  # the turn after the one in which it comes
        process.settled.set()

    late: list[LiveProcess] = []
    patience = Patience(LIMIT_S, late.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patience.serve)
        await settle()
        for number in range(30):
            process = make_process(str(number))
            patience.hold(process)
            jump(LIMIT_S)
            nursery.start_soon(tell, process)
            await settle()
            assert patience.let_go(process)
        assert late == []
        nursery.cancel_scope.cancel()


@in_trio
async def test_nothing_is_kept_of_those_that_were_let_go() -> None:
    patience = Patience(LIMIT_S, lambda process: None)
    for number in range(100):
        process = make_process(str(number))
        patience.hold(process)
        patience.let_go(process)
    assert not patience._held
    assert not patience._late


@in_trio
async def test_run_that_never_execs_is_killed() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: None

        async def call() -> None:
            with pytest.raises(StartFailed) as caught:
                await house.processes.run(calls.ProcessRun(session="work", argv=[OsBytes(b"true")]), house.link)
            assert caught.value.details["stage"] == "sandbox_setup"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await settle()
            jump(ProcessLimits().start_s + 1)
        await settle()
        assert house.launcher.commands == {}


@in_trio
async def test_run_that_does_not_even_end_is_let_go() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: None

        async def kill(process: str, /) -> None:
            """Nothing comes of it."""

        house.launcher.kill = kill  # type: ignore[method-assign]
        refused: list[StartFailed] = []

        async def call() -> None:
            with pytest.raises(StartFailed) as caught:
                await house.processes.run(calls.ProcessRun(session="work", argv=[OsBytes(b"true")]), house.link)
            refused.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            for _ in range(2):
                await settle()
                assert not refused
                jump(ProcessLimits().start_s + 1)
        assert refused[0].details["stage"] == "sandbox_setup"
        assert (await house.processes.list(calls.ProcessListParams())).processes == ()


@in_trio
async def test_start_that_never_execs_is_killed() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: None

        async def call() -> None:
            with pytest.raises(StartFailed) as caught:
                await house.start()
            assert caught.value.details["stage"] == "sandbox_setup"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await settle()
            jump(ProcessLimits().start_s + 1)
        await settle()
        assert house.launcher.commands == {}
