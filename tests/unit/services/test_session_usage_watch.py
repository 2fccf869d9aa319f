from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.model.errors import LimitExceeded, Unavailable
from coworkd.services.session_usage import Measured
from tests.unit.services.disk_house import DiskHouse, open_disk_house
from tests.unit.services.process_house import in_trio

GIB = 1 << 30


class Scales:
    """Says what sessions take instead of the disk."""

    def __init__(self, house: DiskHouse) -> None:
        self.house = house
        self.bytes = 0
        self.error: Unavailable | None = None
        self.asked: list[float] = []
        house.disk.meter.measured = self.measured  # type: ignore[method-assign]

    async def measured(self, record: object, *, young_s: float, deadline_s: float = 0) -> Measured:
        self.asked.append(young_s)
        if self.error is not None:
            raise self.error
        return Measured(home_bytes=self.bytes, stage_bytes=0, files=1, complete=True, at=self.house.now)


@in_trio
async def test_a_session_over_its_limit_starts_nothing_more_until_it_is_below(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        scales = Scales(house)
        await house.ensure()
        house.processes.running["bob"] = 1
        scales.bytes = GIB
        await house.disk.watch.look()
        await house.sessions.open_for_command("bob")
        scales.bytes = GIB + 1
        await house.disk.watch.look()
        await house.disk.watch.look()
        with pytest.raises(
            LimitExceeded, match=r"takes 1073741825 bytes .* may take 1073741824.*session\.prune"
        ) as caught:
            await house.sessions.open_for_command("bob")
        assert caught.value.details["limit_bytes"] == GIB
        await house.sessions.open("bob")  # its files can be got at
        scales.bytes = 5
        await house.sessions.open_for_command("bob")
        assert [told["over"] for told in house.events_of("storage.quota")] == [True, False]
        assert house.processes.running == {"bob": 1}


@in_trio
async def test_commands_of_one_that_is_far_over_are_ended_and_that_is_recorded_first(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        scales = Scales(house)
        await house.ensure()
        house.processes.running["bob"] = 1
        scales.bytes = GIB * 110 // 100 + 100
        house.audit.full.add("session.quota")
        await house.disk.watch.look()
        assert house.processes.running == {"bob": 1}
        house.audit.full.clear()
        await house.disk.watch.look()
        assert house.processes.running == {}
        assert house.audit.fields("session.quota")["used_bytes"] == scales.bytes


@in_trio
async def test_only_sessions_in_which_commands_run_are_looked_at(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        scales = Scales(house)
        for name in ("bob", "eve"):
            await house.ensure(name)
        await house.disk.watch.look()
        assert scales.asked == []
        house.processes.running["eve"] = 1
        await house.disk.watch.look()
        assert scales.asked == [0]


@in_trio
async def test_what_cannot_be_measured_refuses_nobody(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        scales = Scales(house)
        await house.ensure()
        house.processes.running["bob"] = 1
        scales.bytes = GIB + 1
        await house.disk.watch.look()
        scales.error = Unavailable("no worker")
        await house.disk.watch.look()
        await house.sessions.open_for_command("bob")


@in_trio
async def test_a_session_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        scales = Scales(house)
        await house.ensure()
        house.processes.running["bob"] = 1
        scales.bytes = GIB + 1
        await house.disk.watch.look()
        await house.sessions.delete_idle("bob", "test")
        house.processes.running.clear()
        assert await house.sessions.delete_idle("bob", "test")
        await house.disk.watch.look()
        scales.bytes = 0
        await house.ensure()
        asked = len(scales.asked)
        await house.sessions.open_for_command("bob")
        assert len(scales.asked) == asked
