"""`services.process_running`: `run` and `start`, over a launcher whose commands the test plays."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import AlreadyExists, DiskFailed, LimitExceeded, NotFound, StartFailed, Unavailable
from coworkd.model.names import OsBytes
from coworkd.model.process import Exit
from tests.unit.services.fake_launcher import EXITED_AT, RUSAGE, STARTED_AT, FakeCommand
from tests.unit.services.process_house import FakeLink, House, Output, in_trio, jump, open_house, settle

NAME = calls.ProcessName(process="one")


async def run(house: House, link: FakeLink | None = None, **fields: Any) -> calls.ProcessRan:
    params = calls.ProcessRun(**{"session": "work", "argv": [OsBytes(b"cat")], **fields})
    return await house.processes.run(params, link or house.link)


async def wait(house: House) -> Exit:
    return (await house.processes.wait(calls.WaitProcess(process="one"))).exit


# -- run


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("quietly", [False, True])
@in_trio
async def test_run_answers_with_output_exit_and_rusage(early: bool, quietly: bool) -> None:
    async with open_house() as house:
        house.launcher.early = early

        def script(command: FakeCommand) -> None:
            command.start(quietly=quietly)
            command.write(b"out")
            command.write(b"problem", "stderr")
            command.exit(3)

        house.launcher.script = script
        answer = await run(house)
        assert answer == calls.ProcessRan(
            exit=Exit(code=3, signal=None, reason="exited"),
            stdout=b"out",
            stderr=b"problem",
            truncated=calls.TruncatedStreams(stdout=False, stderr=False),
            bytes=calls.PerStream(stdout=3, stderr=7),
            rusage=RUSAGE,
            output="complete",
            started_at=STARTED_AT,
            ended_at=EXITED_AT,
        )


@in_trio
async def test_of_a_run_that_is_over_at_once_start_and_exit_are_published_in_order() -> None:
    async with open_house() as house:

        def script(command: FakeCommand) -> None:
            command.start(quietly=True)
            command.exit(0)

        house.launcher.script = script
        await run(house)
        await settle()
        assert [event.name for event in house.events.published] == ["process.start", "process.exit"]
        assert house.events.published[0].params["pid"] == 12


@in_trio
async def test_run_is_forgotten_everywhere_once_answered() -> None:
    async with open_house() as house:
        house.launcher.script = FakeCommand.exit
        await run(house)
        await settle()
        assert (await house.processes.list(calls.ProcessListParams())).processes == ()
        (forgotten,) = house.launcher.forgotten
        assert forgotten.startswith("run.")
        assert house.launcher.watched == set()


@in_trio
async def test_run_keeps_the_first_bytes_and_counts_all() -> None:
    async with open_house(stream_bytes=8192) as house:

        def script(command: FakeCommand) -> None:
            assert command.write(b"a" * 8192 + b"b" * 8192) == 16384
            command.exit(0)

        house.launcher.script = script
        answer = await run(house)
        assert answer.stdout == b"a" * 8192
        assert answer.bytes.stdout == 16384
        assert answer.truncated == calls.TruncatedStreams(stdout=True, stderr=False)
        assert answer.output == "truncated"


@in_trio
async def test_run_gives_all_of_its_input_then_the_end() -> None:
    async with open_house() as house:
        data = os.urandom(300_000)
        got = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(run, house, input=data))
            await settle()
            while (some := house.command.read()) != b"":
                got += some or b""
                await settle()
            house.command.exit(0)
        assert got == data


@in_trio
async def test_run_that_cannot_start_is_typed_and_leaves_nothing() -> None:
    async with open_house() as house:
        house.launcher.script = FakeCommand.fail
        with pytest.raises(StartFailed) as caught:
            await run(house)
        assert (caught.value.details["stage"], caught.value.details["errno"]) == ("not_found", 2)
        await settle()
        assert house.audit.kinds == ["process.start", "process.start_failed"]
        assert house.launcher.commands == {}
        assert house.processes.start_errors_total == 1


@in_trio
async def test_run_past_its_timeout_answers_with_what_came() -> None:
    async with open_house() as house:
        answers = []

        async def call() -> None:
            answers.append(await run(house, timeout_s=5.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await settle()
            house.command.write(b"so far")
            await settle()
            jump(5.1)
        (answer,) = answers
        assert answer.exit == Exit(code=None, signal="KILL", reason="timeout")
        assert answer.stdout == b"so far"
        assert house.audit.fields("process.kill")["reason"] == "ran for 5 s"


@in_trio
async def test_run_whose_link_ends_is_killed_and_forgotten() -> None:
    async with open_house() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, house)
            await settle()
            house.link.close()
        await settle()
        assert len(house.launcher.killed) == 1
        assert house.launcher.commands == {}
        assert house.audit.fields("process.kill")["reason"] == "its caller has gone"
        assert house.audit.kinds[-1] == "process.exit"


@in_trio
async def test_run_cancelled_is_killed_and_forgotten() -> None:
    async with open_house() as house:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, house)
                await settle()
                scope.cancel()
        await settle()
        assert house.launcher.commands == {}


@in_trio
async def test_run_asks_its_link_once_however_many_there_are() -> None:
    async with open_house() as house:
        house.launcher.script = FakeCommand.exit
        for _ in range(5):
            await run(house)
        assert house.link.listeners == 1


# -- start


@in_trio
async def test_start_answers_with_pid_and_what_was_narrowed() -> None:
    async with open_house() as house:
        started = await house.start()
        assert started == calls.ProcessStarted(
            process="one", pid=12, started_at=STARTED_AT, narrowed=("from the policy",)
        )


@in_trio
async def test_start_does_not_answer_before_the_exec_is_known() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: None
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.start)
                await settle()
                assert (await house.processes.get(NAME)).state == "starting"
                assert house.link.sources == []
                scope.cancel()


@in_trio
async def test_start_attaches_from_offset_0_unless_told_not_to() -> None:
    async with open_house() as house:

        def script(command: FakeCommand) -> None:
            command.write(b"early")
            command.start()

        house.launcher.script = script
        await house.start()
        await settle()
        assert house.link.pull() == [Output("stdout", 0, b"early", False)]
        await house.start(id="two", attach=False)
        assert len(house.link.sources) == 1


@in_trio
async def test_start_loses_nothing_of_what_comes_before_the_answer() -> None:
    async with open_house(stream_bytes=8192) as house:
        written = []

        def script(command: FakeCommand) -> None:
            written.append(command.write(os.urandom(60_000)))

        house.launcher.script = script
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.start)
            await settle()
            house.command.start()
        assert (await house.processes.get(NAME)).streams["stdout"] == (0, 8192)


@in_trio
async def test_start_loses_nothing_of_what_comes_before_it_knows_that_the_command_runs() -> None:
    async with open_house(stream_bytes=8192) as house:
        house.launcher.script = lambda command: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.start)
            for _ in range(4):
                await settle()
                house.command.write(bytes(8192))
            await settle()
            house.command.start()
        assert house.link.pull()[0].offset == 0


@in_trio
async def test_start_that_is_refused_leaves_no_reader() -> None:
    async with open_house() as house:
        house.audit.full.add("process.start")
        with pytest.raises(DiskFailed):
            await house.start()
        assert house.link.sources == []


@in_trio
async def test_start_exit_without_started_counts_as_started() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: command.exit(7)
        assert (await house.start()).pid == 0
        assert await wait(house) == Exit(code=7, signal=None, reason="exited")


@pytest.mark.parametrize("early", [False, True])
@in_trio
async def test_start_that_cannot_start_leaves_no_process_and_no_reader(early: bool) -> None:
    async with open_house() as house:
        house.launcher.early = early
        house.launcher.script = lambda command: command.fail("not_executable", 13)
        with pytest.raises(StartFailed, match="no such command") as caught:
            await house.start()
        assert caught.value.details == {"stage": "not_executable", "errno": 13, "process": "one"}
        assert house.link.sources == []
        with pytest.raises(NotFound):
            await house.processes.get(NAME)
        await settle()
        assert house.launcher.forgotten == ["one"]


@in_trio
async def test_start_with_an_id_in_use_is_refused_also_after_the_end() -> None:
    async with open_house() as house:
        await house.start()
        with pytest.raises(AlreadyExists):
            await house.start()
        house.command.exit(0)
        with pytest.raises(AlreadyExists):
            await house.start()


@in_trio
async def test_start_past_the_bound_is_refused_until_one_has_ended() -> None:
    async with open_house(running=1) as house:
        await house.start()
        with pytest.raises(LimitExceeded):
            await house.start(id="two")
        house.command.exit(0)
        await house.start(id="two")


@in_trio
async def test_start_timeout_kills_the_tree() -> None:
    async with open_house() as house:
        house.policies.timeout_s = 30.0
        await house.start(timeout_s=60.0)
        await settle()
        jump(30.1)
        assert await wait(house) == Exit(code=None, signal="KILL", reason="timeout")


@in_trio
async def test_start_before_serve_is_unavailable() -> None:
    async with open_house() as house:
        house.processes = house.make()
        with pytest.raises(Unavailable):
            await house.start()


@in_trio
async def test_a_service_that_has_stopped_starts_nothing() -> None:
    async with open_house() as house:
        await house.close()
        with pytest.raises(Unavailable, match="not running"):
            await house.start(id="two")
