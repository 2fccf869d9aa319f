"""`services.process_closing`: the end of many at once."""

from __future__ import annotations

import signal

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, InvalidState, Unavailable
from coworkd.model.process import Exit
from coworkd.model.session import SessionView
from coworkd.services.process_closing import END_S
from tests.unit.services.process_house import House, in_trio, jump, open_house, settle

WAIT = calls.WaitProcess(process="one")


async def wait(house: House) -> Exit:
    return (await house.processes.wait(WAIT)).exit


@in_trio
async def test_end_session_kills_all_of_it_and_waits_for_the_record() -> None:
    async with open_house() as house:
        await house.start()
        await house.start(id="two")
        await house.start(id="three", session="play")
        await house.processes.end_session("work")
        assert sorted(house.launcher.killed) == ["one", "two"]
        assert house.audit.kinds.count("process.exit") == 2
        assert house.processes.count("work") == 0


@in_trio
async def test_end_session_ends_what_is_just_being_spawned() -> None:
    async with open_house() as house:
        async with trio.open_nursery() as nursery:

            def ending(_: object) -> None:
                nursery.start_soon(house.processes.end_session, "work")

            house.launcher.before_spawn = ending
            await house.start()
        assert set(house.launcher.killed) == {"one"}
        assert (await wait(house)).reason == "killed"


@in_trio
async def test_who_ends_a_session_does_not_wait_for_a_command_that_waits_for_it() -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        house.sessions.turn = trio.Event()

        async def start() -> None:
            with pytest.raises(InvalidState, match="ended before it was started"):
                await house.start()

        nursery.start_soon(start)
        await settle()
        assert house.processes.count("work") == 1
        await house.processes.end_session("work")
        house.sessions.turn.set()
        await settle()
        assert house.processes.count("work") == 0
        assert "process.start" not in house.audit.kinds


@in_trio
async def test_a_command_whose_own_start_ends_its_session_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is that starts where the session takes far more of the disk than it may."""
    async with open_house() as house:
        gate = house.sessions.open

        async def end_and_open(name: str) -> SessionView:
            await house.processes.end_session(name)
            return await gate(name)

        monkeypatch.setattr(house.sessions, "open_for_command", end_and_open)
        with pytest.raises(InvalidState, match="ended before it was started"):
            await house.start()


@in_trio
async def test_a_command_that_hangs_in_the_kernel_keeps_nobody_for_ever() -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        await house.start()
        house.command.on_kill = lambda: None
        told: list[CoworkError] = []

        async def end() -> None:
            try:
                await house.processes.end_session("work")
            except CoworkError as error:
                told.append(error)

        for ending in (end, house.processes.end_all):
            nursery.start_soon(ending)
            await settle()
            assert nursery.child_tasks
            jump(END_S)
            await settle()
            assert not nursery.child_tasks
        assert [type(error) for error in told] == [Unavailable]
        assert "1 commands of session work" in told[0].message


@in_trio
async def test_end_all_leaves_none_running() -> None:
    async with open_house() as house:
        await house.start()
        await house.start(id="two", session="play")
        await house.processes.end_all()
        assert house.processes.state_counts() == {"starting": 0, "running": 0, "exited": 2}


@in_trio
async def test_terminate_all_asks_first_and_then_takes() -> None:
    async with open_house() as house:
        await house.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.processes.terminate_all, 2.0)
            await settle()
            assert house.command.signals == [signal.SIGTERM]
            assert house.launcher.killed == []
            jump(2.1)
        assert set(house.launcher.killed) == {"one"}
        assert house.processes.state_counts() == {"starting": 0, "running": 0, "exited": 1}
