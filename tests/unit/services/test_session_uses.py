from __future__ import annotations

from pathlib import Path

from tests.unit.services.process_house import NOW, in_trio
from tests.unit.services.session_house import open_house


@in_trio
async def test_a_use_is_known_at_once_and_written_now_and_then(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        uses, records = house.sessions.uses, house.sessions.table.records
        assert uses.idle_since(records["bob"]) == NOW
        house.now += 50
        await house.sessions.open_for_command("bob")
        assert uses.idle_since(records["bob"]) == NOW + 50
        await uses.write_due()
        assert house.stored()["bob"].used_at == NOW + 50
        for _ in range(3):
            house.now += 100
            await house.sessions.open_for_command("bob")
            await uses.write_due()
        assert house.stored()["bob"].used_at == NOW + 50
        assert uses.idle_since(records["bob"]) == NOW + 350
        house.now += 300
        await house.sessions.open_for_command("bob")
        await uses.write_due()
        assert house.stored()["bob"].used_at == NOW + 650


@in_trio
async def test_a_session_in_which_commands_run_is_in_use(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        house.now += 5000
        house.processes.running["bob"] = 1
        assert house.sessions.uses.idle_since(house.sessions.table.records["bob"]) == house.now


@in_trio
async def test_a_use_that_cannot_be_written_is_not_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        house.now += 50
        await house.sessions.open_for_command("bob")
        house.records.reserved["bob"] = None  # refuses to be written
        await house.sessions.uses.write_due()
        house.records.reserved.clear()
        await house.sessions.uses.write_due()
        assert house.stored()["bob"].used_at == NOW + 50


@in_trio
async def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        house.sessions.uses.touch("bob")
        await house.sessions.delete_idle("bob", "test")
        await house.sessions.uses.write_due()
        assert house.stored() == {}
