"""`services.process_building`: terminals that come and do not, and descriptors that are missing."""

from __future__ import annotations

import os
import tty
from collections.abc import Callable

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import InvalidState, SandboxSetupFailed, StartFailed
from coworkd.model.names import OsBytes
from coworkd.model.process import TtySize
from coworkd.services.pumps import PASSES, REST_S
from coworkd.services.terminal import ARRIVAL_S
from tests.unit.services.fake_launcher import FakeCommand
from tests.unit.services.process_house import FakeLink, House, Output, in_trio, jump, open_house, settle

SIZE = TtySize(rows=24, cols=80)


class Pty:
    """What a shim opens: it sends the master and keeps the slave."""

    def __init__(self) -> None:
        self.slave = -1

    def play(self, command: FakeCommand) -> None:
        master, self.slave = os.openpty()
        tty.setraw(self.slave)
        command.send_master(master)
        os.close(master)
        command.start()

    def exit(self, command: FakeCommand) -> None:
        os.close(self.slave)
        command.exit(0)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Terminals are read in threads."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def run(house: House) -> None:
    await house.processes.run(calls.ProcessRun(session="work", argv=[OsBytes(b"cat")]), house.link)


async def start_terminal(house: House) -> Pty:
    shim = Pty()
    house.launcher.script = shim.play
    await house.start(tty=SIZE)
    return shim


@in_trio
async def test_terminal_is_read_written_and_resized() -> None:
    async with open_house() as house:
        shim = await start_terminal(house)
        os.write(shim.slave, b"prompt")
        got = b""
        while got != b"prompt":
            got += house.link.pull_bytes("tty")
            await trio.lowlevel.checkpoint()
        answer = await house.processes.write_stdin(calls.WriteStdin(process="one", offset=0, data=b"ls"))
        assert answer.offset == 2
        assert os.read(shim.slave, 10) == b"ls"
        await house.processes.resize(calls.Resize(process="one", rows=50, cols=132))
        assert os.get_terminal_size(shim.slave) == (132, 50)
        with pytest.raises(InvalidState, match="0x04"):
            await house.processes.close_stdin(calls.CloseStdin(process="one"))
        shim.exit(house.command)


@in_trio
async def test_terminal_exit_comes_behind_its_last_byte() -> None:
    async with open_house() as house:
        shim = await start_terminal(house)
        os.write(shim.slave, b"bye")
        await wait_until(lambda: house.processes.spool_bytes == 3)
        shim.exit(house.command)
        record = await house.processes.wait(calls.WaitProcess(process="one"))
        assert (record.output, record.bytes) == ("complete", {"tty": 3})
        got = house.link.pull()
        assert (got[0].data, got[-1]["process"]) == (b"bye", "one")
        await settle()


@in_trio
async def test_terminal_outlives_a_restart() -> None:
    async with open_house() as house:
        shim = await start_terminal(house)
        os.write(shim.slave, b"before")
        await wait_until(lambda: house.processes.spool_bytes == 6)
        await settle()
        await house.restart(lambda: os.write(shim.slave, b" after"))
        await wait_until(lambda: house.processes.spool_bytes == 12)
        link = FakeLink()
        await house.processes.attach(calls.ProcessAttach(process="one"), link)
        assert link.pull_bytes("tty") == b"before after"
        shim.exit(house.command)


@in_trio
async def test_terminal_outlives_a_restart_before_the_launcher_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house() as house:

        async def keep(process: str, name: str, fd: int) -> None:
            await trio.sleep_forever()

        with monkeypatch.context() as patch:
            patch.setattr(house.launcher, "keep", keep)
            shim = await start_terminal(house)
            os.write(shim.slave, b"before")
            await settle()
            await house.close()
        house.launcher.change_supervisor()
        os.write(shim.slave, b" after")
        house.processes = house.make()
        await house.open(house.nursery)
        link = FakeLink()
        await house.processes.attach(calls.ProcessAttach(process="one"), link)
        got = b""
        while got != b"before after":
            got += link.pull_bytes("tty")
            await trio.lowlevel.checkpoint()
        assert "tty_master" in house.command.held
        shim.exit(house.command)


@in_trio
async def test_terminal_that_never_comes_fails_the_start_and_kills() -> None:
    async with open_house() as house:

        async def call() -> None:
            with pytest.raises(StartFailed, match="terminal") as caught:
                await house.start(tty=SIZE)
            assert caught.value.details["stage"] == "sandbox_setup"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await settle()
            jump(ARRIVAL_S + 0.1)
        await settle()
        assert house.launcher.killed == ["one"]
        assert house.launcher.commands == {}


@in_trio
async def test_terminal_that_is_none_fails_the_start_and_kills() -> None:
    async with open_house() as house:

        def script(command: FakeCommand) -> None:
            null = os.open("/dev/null", os.O_RDWR)
            command.send_master(null)
            os.close(null)
            command.start()

        house.launcher.script = script
        with pytest.raises(StartFailed, match="no pty master"):
            await house.start(tty=SIZE)
        await settle()
        assert house.launcher.commands == {}


@in_trio
async def test_command_that_cannot_start_on_a_terminal_keeps_its_own_reason() -> None:
    async with open_house() as house:
        house.launcher.script = FakeCommand.fail
        with pytest.raises(StartFailed) as caught:
            await house.start(tty=SIZE)
        assert caught.value.details["stage"] == "not_found"
        assert house.launcher.killed == []
        await settle()


@pytest.mark.parametrize("name", ["stdout", "stderr", "stdout_spool", "stderr_spool"])
@in_trio
async def test_spawn_without_its_descriptors_is_abandoned_and_leaves_nothing(name: str) -> None:
    async with open_house() as house:
        house.launcher.withheld = {name}
        with pytest.raises(SandboxSetupFailed, match=name):
            await house.start()
        assert house.launcher.abandoned == ["one"]
        assert house.launcher.commands == {}
        assert house.audit.kinds == ["process.start", "process.start_failed"]


@in_trio
async def test_adopted_process_goes_on_without_gap() -> None:
    async with open_house() as house:
        await house.start()
        house.command.write(b"before")
        await settle()
        await house.restart(lambda: house.command.write(b" after"))
        await settle()
        attached = await house.processes.attach(calls.ProcessAttach(process="one", stdout=3), house.link)
        assert attached.streams["stdout"] == calls.Range(first=0, end=12)
        assert house.link.pull() == [Output("stdout", 3, b"ore after", False)]
        assert house.audit.fields("process.adopt")["state"] == "running"


@in_trio
async def test_adopted_process_that_ended_meanwhile_is_told() -> None:
    async with open_house() as house:
        await house.start()

        def end() -> None:
            house.command.write(b"last words")
            house.command.exit(4)

        await house.restart(end)
        assert (await house.processes.wait(calls.WaitProcess(process="one"))).exit.code == 4
        await house.processes.attach(calls.ProcessAttach(process="one"), house.link)
        assert house.link.pull_bytes() == b"last words"


@in_trio
async def test_adopted_process_that_never_ran_is_recorded_and_forgotten() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: None
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.start)
                await settle()
                nursery.cancel_scope.cancel()
        await house.restart(lambda: house.command.fail())
        await settle()
        assert house.audit.kinds[-1] == "process.start_failed"
        assert house.launcher.forgotten == ["one"]


@in_trio
async def test_adopted_one_shot_is_killed_and_forgotten() -> None:
    async with open_house() as house:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, house)
                await settle()
                await house.close()
                scope.cancel()
        await house.restart()
        await settle()
        assert len(house.launcher.killed) == 1
        assert house.launcher.commands == {}


@in_trio
async def test_adopted_stdin_goes_on_where_the_first_write_says() -> None:
    async with open_house() as house:
        await house.start(stdin="pipe")
        await house.processes.write_stdin(calls.WriteStdin(process="one", offset=0, data=b"12345"))
        await house.restart()
        answer = await house.processes.write_stdin(calls.WriteStdin(process="one", offset=5, data=b"678"))
        assert answer.offset == 8
        assert house.command.read() == b"12345678"


@pytest.mark.parametrize("starting", [False, True])
@in_trio
async def test_what_nobody_reads_rests_longer_while_others_start(starting: bool) -> None:
    async with open_house() as house:
        await house.start(attach=False)
        unread = house.command

        async def wait_rests(number: int) -> int:
            for rest in range(number):
                if starting:
                    await house.start(id=f"other-{rest}")
                jump(REST_S)
                await settle()
            (known,) = (
                each
                for each in (await house.processes.list(calls.ProcessListParams())).processes
                if each.process == "one"
            )
            return known.streams["stdout"][1]

        unread.write(b"one")
        await settle()
        jump(REST_S)  # which its own start made it pass
        await settle()
        unread.write(b"two")
        assert await wait_rests(PASSES - 1) == (3 if starting else 6)
