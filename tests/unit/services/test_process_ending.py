"""`services.process_ending`: records of ends, and ends that go wrong."""

from __future__ import annotations

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import Unavailable
from coworkd.model.process import Exit
from coworkd.services.process_ending import RECORD_AGAIN_S
from tests.unit.services.process_house import FakeLink, House, in_trio, jump, open_house, settle

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
        await house.processes.forget(calls.ForgetProcess(process="one"), house.link)
        await settle()
        assert house.launcher.forgotten == []
        gate.set()
        await settle()
        assert house.launcher.forgotten == ["one"]


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
async def test_an_end_that_the_log_refuses_is_tried_again_and_kept_by_the_launcher_until_then() -> None:
    async with open_house() as house:
        house.audit.full = {"process.exit"}
        await house.start()
        house.command.exit(0)
        await wait(house)
        await settle()
        await house.processes.forget(calls.ForgetProcess(process="one"), FakeLink())
        await settle()
        assert house.launcher.forgotten == []
        jump(RECORD_AGAIN_S)
        await settle()
        assert house.launcher.forgotten == []
        house.audit.full = set()
        jump(RECORD_AGAIN_S)
        await settle()
        assert house.audit.kinds.count("process.exit") == 1
        assert house.launcher.forgotten == ["one"]


@in_trio
async def test_kill_of_an_ended_process_does_nothing() -> None:
    async with open_house() as house:
        await house.start()
        house.command.exit(0)
        await house.processes.kill(calls.KillProcess(process="one"))
        assert house.launcher.killed == []
        assert "process.kill" not in house.audit.kinds
