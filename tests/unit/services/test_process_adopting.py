"""`services.process_adopting`: what the launcher kept, and what it should not have."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.process import Exit
from tests.unit.services.process_house import House, in_trio, jump, open_house, settle

WAIT = calls.WaitProcess(process="one")


async def wait(house: House) -> Exit:
    return (await house.processes.wait(WAIT)).exit


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
