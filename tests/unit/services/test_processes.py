"""`services.processes`: links, forgetting and ends, over a launcher whose commands the test plays."""

from __future__ import annotations

import signal

import pytest

from coworkd.config import FinishedConfig, SpoolConfig
from coworkd.model import calls
from coworkd.model.errors import InvalidState, NotFound
from coworkd.model.process import Exit
from tests.unit.services.fake_launcher import RUSAGE, FakeCommand
from tests.unit.services.process_house import FakeLink, House, in_trio, jump, open_house, settle

NAME = calls.ProcessName(process="one")


async def wait(house: House) -> Exit:
    return (await house.processes.wait(calls.WaitProcess(process="one"))).exit


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


# -- forgetting


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
