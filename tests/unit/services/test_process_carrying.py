"""`services.process_carrying`: an ended command goes to the next coworkd without its launcher, exit and output."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.process import Exit
from coworkd.services.launching import LaunchedFds
from coworkd.services.launching_adopted import Untaken
from tests.unit.services.process_house import FakeLink, House, in_trio, jump, open_house, settle

WAIT = calls.WaitProcess(process="one")


async def carried(house: House) -> None:
    """The launcher goes, and a coworkd with another one takes what is left."""
    kept = house.processes.carry()
    await house.close()
    house.launcher.close()
    for process in house.launcher.watched:
        house.launcher.unwatch(process)
    untaken = Untaken()
    for adopted, fds in kept:
        untaken.carry(adopted, LaunchedFds(adopted.spawned, fds))
    house.launcher.untaken = untaken
    house.link = FakeLink("after")
    house.processes = house.make()
    await house.open(house.nursery)


@in_trio
async def test_exit_reason_and_output_are_there() -> None:
    async with open_house() as house:
        await house.start()
        house.command.write(b"last words")
        await house.processes.kill(calls.KillProcess(process="one", grace_s=0.0))
        jump(0.6)
        await settle()
        before = await house.processes.wait(WAIT)
        assert before.exit.reason == "killed"
        await carried(house)
        assert await house.processes.wait(WAIT) == before
        await house.processes.attach(calls.ProcessAttach(process="one"), house.link)
        assert house.link.pull_bytes() == b"last words"
        assert house.audit.kinds.count("process.exit") == 1


@in_trio
async def test_lost_stays_lost() -> None:
    async with open_house() as house:
        await house.start()
        house.launcher.lose()
        jump(0.6)
        await settle()
        house.launcher.found()
        await carried(house)
        assert (await house.processes.wait(WAIT)).exit == Exit(code=None, signal=None, reason="lost")


@in_trio
async def test_what_still_runs_is_not_carried() -> None:
    async with open_house() as house:
        await house.start()
        assert house.processes.carry() == ()
