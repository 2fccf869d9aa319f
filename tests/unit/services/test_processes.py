"""`services.processes`: every verb, over a launcher whose commands the test plays."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

import pytest
import trio

from coworkd.config import FinishedConfig, SpoolConfig
from coworkd.model import calls
from coworkd.model.errors import (
    AlreadyExists,
    DiskFailed,
    InvalidState,
    LimitExceeded,
    NotFound,
    StartFailed,
    Unavailable,
)
from coworkd.model.names import OsBytes
from coworkd.model.process import Exit
from coworkd.services import processes
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


# -- links


@in_trio
async def test_exit_comes_after_the_last_byte_on_every_link() -> None:
    async with open_house() as house:
        other = FakeLink("other")
        await house.start()
        await house.processes.attach(calls.ProcessAttach(process="one"), other)
        house.command.write(b"x" * 100_000)
        house.command.write(b"problem", "stderr")
        await settle()
        first = house.link.pull(frames=1)
        house.command.exit(0)
        await settle()
        for link, got in ((house.link, first + house.link.pull()), (other, other.pull())):
            assert got[-1]["exit"] == {"code": 0, "signal": None, "reason": "exited"}
            assert sum(len(frame.data) for frame in got[:-1]) == got[-1]["bytes"]["stdout"] + 7
            assert sorted(frame.stream for frame in got[:-1] if frame.eof) == ["stderr", "stdout"]
            await settle()
            assert link.sources == []


@in_trio
async def test_link_that_ends_leaves_the_command_running() -> None:
    async with open_house() as house:
        await house.start()
        house.link.close()
        await settle()
        assert house.launcher.killed == []
        assert (await house.processes.get(NAME)).state == "running"


@in_trio
async def test_link_that_stops_reading_delays_no_other_process() -> None:
    async with open_house(stream_bytes=8192) as house:
        await house.start()
        await house.start(id="two", attach=False)
        silent, busy = house.launcher.commands["one"], house.launcher.commands["two"]
        silent.write(b"x" * 65536)
        other = FakeLink("other")
        await house.processes.attach(calls.ProcessAttach(process="two"), other)
        busy.write(b"y" * 50_000)
        got = b""
        while len(got) < 50_000:
            await settle()
            got += other.pull_bytes()
        assert (await house.processes.get(NAME)).streams["stdout"] == (0, 8192)


# -- looking and forgetting


@in_trio
async def test_forget_of_a_running_process_is_refused() -> None:
    async with open_house() as house:
        await house.start()
        with pytest.raises(InvalidState):
            await house.processes.forget(calls.ForgetProcess(process="one"), house.link)


@in_trio
async def test_forget_leaves_another_link_what_it_still_reads() -> None:
    async with open_house() as house:
        other = FakeLink("other")
        await house.start()
        await house.processes.attach(calls.ProcessAttach(process="one"), other)
        house.command.write(b"x" * 50_000)
        house.command.exit(0)
        await wait(house)
        await house.processes.forget(calls.ForgetProcess(process="one"), house.link)
        with pytest.raises(NotFound):
            await house.processes.get(NAME)
        assert house.link.sources == []
        *output, ended = other.pull()
        assert sum(len(frame.data) for frame in output) == 50_000
        assert ended["exit"]["code"] == 0
        await settle()
        assert other.sources == []


@in_trio
async def test_one_that_has_to_go_for_newer_ones_leaves_its_readers_the_rest() -> None:
    async with open_house(finished=FinishedConfig(keep_count=1)) as house:
        other = FakeLink("other")
        for id in ("one", "two"):
            await house.start(id=id)
            if id == "one":
                await house.processes.attach(calls.ProcessAttach(process="one"), other)
            house.launcher.commands[id].write(b"x" * 50_000)
            house.launcher.commands[id].exit(0)
            await house.processes.wait(calls.WaitProcess(process=id))
        with pytest.raises(NotFound):
            await house.processes.get(NAME)
        *output, ended = other.pull()
        assert sum(len(frame.data) for frame in output) == 50_000
        assert ended["process"] == "one"
        await settle()
        assert other.sources == []


async def end_many(house: House, stop: int, start: int = 0) -> None:
    """Commands that put 1,000 bytes out and end, attached and not read."""
    for number in range(start, stop):
        await house.start(id=f"p{number}")
        house.launcher.commands[f"p{number}"].write(b"x" * 1000)
        house.launcher.commands[f"p{number}"].exit(0)
        await house.processes.wait(calls.WaitProcess(process=f"p{number}"))
    await settle()


@in_trio
async def test_no_more_than_some_that_have_to_go_stay_for_those_who_read_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_PARTING_LIMIT", 2)
    async with open_house(finished=FinishedConfig(keep_count=1)) as house:
        await end_many(house, 6)
        assert house.processes.spool_memory[0] == 3 * 1000
        got = house.link.pull()
        assert [each["process"] for each in got if isinstance(each, dict) and "exit" in each] == [
            f"p{number}" for number in range(6)
        ]
        gaps = [each for each in got if isinstance(each, dict) and each.get("dropped")]
        assert [(gap["process"], gap["dropped"], gap["offset"], gap["eof"]) for gap in gaps] == [
            (f"p{number}", [0, 1000], 1000, True) for number in range(3)
        ]
        await settle()
        assert house.link.sources == []


@in_trio
async def test_what_is_read_is_kept_over_the_bound_of_bytes_until_it_is_read() -> None:
    async with open_house(finished=FinishedConfig(keep_bytes=2500)) as house:
        await end_many(house, 6)
        assert house.launcher.forgotten == [], "the next coworkd has all that this one has"
        assert await count_kept(house) == 6
        house.link.pull()
        await settle()
        assert sorted(house.launcher.forgotten) == [f"p{number}" for number in range(4)]
        assert await count_kept(house) == 2


@in_trio
async def test_what_is_read_is_kept_over_the_bound_of_bytes_while_there_is_room() -> None:
    async with open_house(finished=FinishedConfig(keep_bytes=2500), total_bytes=4000) as house:
        await end_many(house, 6)
        assert house.launcher.forgotten == ["p0", "p1"]
        assert await count_kept(house) == 4


async def count_kept(house: House) -> int:
    return len((await house.processes.list(calls.ProcessListParams())).processes)


@in_trio
async def test_a_link_that_does_not_even_take_how_commands_ended_is_told_so_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_PARTING_LIMIT", 2)
    monkeypatch.setattr(processes, "_TELLING_LIMIT", 4)
    async with open_house(finished=FinishedConfig(keep_count=1)) as house:
        await end_many(house, 5)
        assert house.link.finished is None
        await end_many(house, 6, start=5)
        assert isinstance(house.link.finished, LimitExceeded)
        assert house.link.finished.details["process"] == "p0"


@in_trio
async def test_forget_lets_output_go_once_the_exit_is_recorded() -> None:
    async with open_house() as house:
        await house.start()
        house.command.write(b"x" * 10)
        house.command.exit(0)
        await wait(house)
        assert (house.processes.spool_bytes, house.processes.output_bytes) == (10, 10)
        assert house.processes.spool_memory == (10, SpoolConfig().total_bytes)
        await house.processes.forget(calls.ForgetProcess(process="one"), house.link)
        assert house.processes.spool_bytes == 0
        assert house.link.sources == []
        await settle()
        assert house.launcher.forgotten == ["one"]
        with pytest.raises(NotFound):
            await house.processes.get(NAME)


@in_trio
async def test_ended_processes_are_kept_within_bounds() -> None:
    async with open_house(finished=FinishedConfig(keep_count=2)) as house:
        house.launcher.script = FakeCommand.exit
        for name in ("a", "b", "c"):
            await house.start(id=name)
        await settle()
        assert [info.process for info in (await house.processes.list(calls.ProcessListParams())).processes] == [
            "b",
            "c",
        ]
        assert house.launcher.forgotten == ["a"]


@in_trio
async def test_ended_processes_go_with_age() -> None:
    async with open_house(finished=FinishedConfig(keep_s=3600)) as house:
        house.launcher.script = FakeCommand.exit
        await house.start()
        await settle()
        jump(3700)
        await settle()
        assert (await house.processes.list(calls.ProcessListParams())).processes == ()


# -- ends


@in_trio
async def test_exit_is_published_and_recorded_once() -> None:
    async with open_house() as house:
        await house.start()
        house.command.exit(signal=signal.SIGSEGV)
        await settle()
        start, event = house.events.published
        assert (start.name, start.params["process"], start.params["pid"]) == ("process.start", "one", 12)
        assert event.name == "process.exit"
        assert event.params["exit"] == {"code": None, "signal": "SEGV", "reason": "signaled"}
        fields = house.audit.fields("process.exit")
        assert fields["rusage"] == RUSAGE
        assert fields["pid"] == 12


@in_trio
async def test_lost_launcher_is_an_exit_without_code() -> None:
    async with open_house() as house:
        await house.start()
        house.launcher.lose()
        await settle()
        assert await wait(house) == Exit(code=None, signal=None, reason="lost")
