"""`services.process_ending`: records of ends, and ends that go wrong."""

from __future__ import annotations

import signal

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, DiskFailed, InvalidState, Unavailable
from coworkd.model.process import Exit
from coworkd.model.session import SessionView
from coworkd.services.processes import END_S
from tests.unit.services.process_house import House, in_trio, jump, open_house, settle

WAIT = calls.WaitProcess(process="one")


async def wait(house: House) -> Exit:
    return (await house.processes.wait(WAIT)).exit


async def kill(house: House, grace_s: float | None = None) -> None:
    await house.processes.kill(calls.KillProcess(process="one", grace_s=grace_s))


@in_trio
async def test_kill_is_recorded_before_the_signal() -> None:
    async with open_house() as house:
        await house.start()
        house.command.on_signal = lambda number: house.audit.records.append(("reached", {}))
        await kill(house, 3.0)
        assert house.audit.kinds[-2:] == ["process.kill", "reached"]
        assert house.audit.fields("process.kill")["grace_s"] == 3.0


@in_trio
async def test_first_reason_stays_the_reason() -> None:
    async with open_house() as house:
        await house.start(timeout_s=3.0)
        await kill(house, 60.0)
        await settle()
        jump(3.5)
        assert (await wait(house)).reason == "killed"


@in_trio
async def test_kill_whose_term_reaches_nobody_ends_the_tree_at_once() -> None:
    async with open_house() as house:
        await house.start()
        house.command.started_notice = None
        await kill(house, 60.0)
        assert (await wait(house)).reason == "killed"


@in_trio
async def test_kill_twice_ends_it_at_the_shorter_grace() -> None:
    async with open_house() as house:
        await house.start()
        await kill(house, 60.0)
        await kill(house, 0.0)
        assert (await wait(house)).reason == "killed"


@in_trio
async def test_kill_with_a_lost_launcher_is_unavailable_and_the_process_lost() -> None:
    async with open_house() as house:
        await house.start()
        house.command.on_kill = house.launcher.lose
        house.command.on_signal = lambda number: house.launcher.lose()
        await kill(house)
        assert (await wait(house)).reason == "lost"
        house.launcher.change_supervisor()
        with pytest.raises(Unavailable):
            await house.start(id="two")


@in_trio
async def test_timeout_kills_though_the_log_is_full() -> None:
    async with open_house() as house:
        await house.start(timeout_s=3.0)
        house.audit.full = {"process.kill"}
        await settle()
        jump(3.1)
        assert (await wait(house)).reason == "timeout"


@in_trio
async def test_timeout_of_a_process_that_ended_does_nothing() -> None:
    async with open_house() as house:
        await house.start(timeout_s=3.0)
        house.command.exit(0)
        await settle()
        jump(4)
        await settle()
        assert house.launcher.killed == []


@in_trio
async def test_launcher_forgets_only_after_the_exit_is_recorded() -> None:
    async with open_house() as house:
        await house.start()
        gate = trio.Event()
        record = house.audit.record

        async def slow(kind: str, fields: object, /) -> None:
            await gate.wait()
            await record(kind, fields)  # type: ignore[arg-type]

        house.audit.record = slow  # type: ignore[method-assign]
        house.command.exit(0)
        await house.processes.wait(WAIT)
        await house.processes.forget(calls.ForgetProcess(process="one"))
        await settle()
        assert house.launcher.forgotten == []
        gate.set()
        await settle()
        assert house.launcher.forgotten == ["one"]


@in_trio
async def test_signal_goes_to_the_launcher_and_is_recorded_first() -> None:
    async with open_house() as house:
        await house.start()
        house.command.on_signal = lambda number: house.audit.records.append(("reached", {"signal": number}))
        await house.processes.signal(calls.SignalProcess(process="one", signal="SIGTERM"))
        assert house.audit.kinds[-2:] == ["process.signal", "reached"]
        assert house.command.signals == [signal.SIGTERM]


@in_trio
async def test_signal_that_cannot_be_recorded_is_not_sent() -> None:
    async with open_house() as house:
        await house.start()
        house.audit.full = {"process.signal"}
        with pytest.raises(DiskFailed):
            await house.processes.signal(calls.SignalProcess(process="one", signal=15))
        assert house.command.signals == []


@in_trio
async def test_signal_after_the_exit_is_refused() -> None:
    async with open_house() as house:
        await house.start()
        house.command.exit(0)
        with pytest.raises(InvalidState):
            await house.processes.signal(calls.SignalProcess(process="one", signal=15))


@in_trio
async def test_signal_that_loses_the_race_with_the_exit_is_refused_as_such() -> None:
    async with open_house() as house:
        await house.start()
        house.command.started_notice = None
        with pytest.raises(InvalidState):
            await house.processes.signal(calls.SignalProcess(process="one", signal=15))


@in_trio
async def test_kill_lets_the_command_end_itself_within_grace() -> None:
    async with open_house() as house:
        await house.start()
        house.command.on_signal = lambda number: house.command.exit(0)
        await house.processes.kill(calls.KillProcess(process="one"))
        assert await wait(house) == Exit(code=0, signal=None, reason="killed")
        await settle()
        jump(10)
        await settle()
        assert house.launcher.killed == []


@in_trio
async def test_kill_ends_the_tree_after_grace() -> None:
    async with open_house() as house:
        await house.start()
        await house.processes.kill(calls.KillProcess(process="one", grace_s=2.0))
        await settle()
        jump(1.9)
        await settle()
        assert house.launcher.killed == []
        jump(0.2)
        assert await wait(house) == Exit(code=None, signal="KILL", reason="killed")


@in_trio
async def test_kill_without_grace_ends_the_tree_at_once() -> None:
    async with open_house() as house:
        await house.start()
        await house.processes.kill(calls.KillProcess(process="one", grace_s=0))
        assert (await wait(house)).reason == "killed"
        assert house.command.signals == []


@in_trio
async def test_kill_is_done_though_the_log_is_full() -> None:
    async with open_house() as house:
        await house.start()
        house.audit.full = {"process.kill", "process.exit"}
        await house.processes.kill(calls.KillProcess(process="one", grace_s=0))
        assert (await wait(house)).reason == "killed"


@in_trio
async def test_kill_of_an_ended_process_does_nothing() -> None:
    async with open_house() as house:
        await house.start()
        house.command.exit(0)
        await house.processes.kill(calls.KillProcess(process="one"))
        assert house.launcher.killed == []
        assert "process.kill" not in house.audit.kinds


@in_trio
async def test_process_told_as_lost_is_killed_where_it_lives() -> None:
    async with open_house() as house:
        await house.start()
        house.launcher.reconnect()
        await settle()
        jump(0.6)
        assert (await wait(house)).reason == "lost"
        jump(61)
        await settle()
        assert house.launcher.killed == ["one"]
        assert (await wait(house)).reason == "lost"


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
