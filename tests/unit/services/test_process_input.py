"""`services.process_input`: stdin, sizes and signals, to the command and to nobody else."""

from __future__ import annotations

import signal

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState
from coworkd.model.names import OsBytes
from tests.unit.services.fake_launcher import FakeCommand
from tests.unit.services.process_house import in_trio, open_house


@in_trio
async def test_write_stdin_acknowledges_what_the_pipe_took() -> None:
    async with open_house() as house:
        await house.start(stdin="pipe")
        answer = await house.processes.write_stdin(calls.WriteStdin(process="one", offset=0, data=b"hello"))
        assert answer.offset == 5
        assert house.command.read() == b"hello"


@in_trio
async def test_close_stdin_is_the_end_of_file_though_the_launcher_has_a_copy() -> None:
    async with open_house() as house:
        await house.start(stdin="pipe")
        assert house.command.read() is None
        await house.processes.close_stdin(calls.CloseStdin(process="one"))
        assert house.command.read() == b""
        await house.processes.close_stdin(calls.CloseStdin(process="one"))


@in_trio
async def test_stdin_without_a_pipe_is_refused() -> None:
    async with open_house() as house:
        await house.start()
        with pytest.raises(InvalidState, match="no stdin"):
            await house.processes.write_stdin(calls.WriteStdin(process="one", offset=0, data=b"x"))
        with pytest.raises(InvalidState, match="no stdin"):
            await house.processes.close_stdin(calls.CloseStdin(process="one"))


@in_trio
async def test_stdin_offset_below_zero_is_refused() -> None:
    async with open_house() as house:
        await house.start(stdin="pipe")
        with pytest.raises(InvalidParams):
            await house.processes.write_stdin(calls.WriteStdin(process="one", offset=-1, data=b"x"))


@in_trio
async def test_resize_without_a_terminal_is_refused() -> None:
    async with open_house() as house:
        await house.start()
        with pytest.raises(InvalidState, match="no terminal"):
            await house.processes.resize(calls.Resize(process="one", rows=1, cols=1))


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
async def test_signal_reaches_a_one_shot_of_which_nobody_was_told_that_it_runs() -> None:
    async with open_house() as house:

        async def send() -> None:
            (process,) = house.launcher.commands
            await house.processes.signal(calls.SignalProcess(process=process, signal=15))
            house.command.exit(signal=signal.SIGTERM)

        async with trio.open_nursery() as nursery:

            def script(command: FakeCommand) -> None:
                command.start(quietly=True)
                nursery.start_soon(send)

            house.launcher.script = script
            ran = await house.processes.run(calls.ProcessRun(session="work", argv=[OsBytes(b"x")]), house.link)
        assert ran.exit.signal == "TERM"
        assert house.command.signals == [signal.SIGTERM]


@in_trio
async def test_signal_to_a_command_that_was_let_in_and_has_not_begun_is_refused_as_such() -> None:
    async with open_house() as house:

        async def send() -> None:
            (process,) = house.launcher.commands
            with pytest.raises(InvalidState, match="still starting"):
                await house.processes.signal(calls.SignalProcess(process=process, signal=15))
            house.command.exit()

        async with trio.open_nursery() as nursery:
            house.launcher.script = lambda command: nursery.start_soon(send)
            await house.processes.run(calls.ProcessRun(session="work", argv=[OsBytes(b"x")]), house.link)
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
