from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.model.calls_storage import SessionUsageParams
from coworkd.model.errors import DiskFailed, NotFound, PolicyDenied, Unavailable
from tests.unit.services.disk_house import DiskHouse, open_disk_house
from tests.unit.services.process_house import NOW, in_trio

ALL = SessionUsageParams()


async def used(house: DiskHouse, name: str = "bob") -> tuple[int, int, int]:
    (told,) = (await house.disk.meter.usage(SessionUsageParams(session=name))).sessions
    assert told.measured_at == house.now
    return told.home_bytes, told.stage_bytes, told.files


@in_trio
async def test_a_session_takes_its_home_and_its_stages(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        empty = await used(house)
        house.write("a/b", 100_000)
        stage = tmp_path / "stages/bob/src/upper"
        stage.mkdir(parents=True)
        (stage / "file").write_bytes(bytes(50_000))
        house.now += 11
        home, staged, files = await used(house)
        assert home - empty[0] >= 100_000
        assert staged >= 50_000
        assert files - empty[2] == 5


@in_trio
async def test_a_young_measurement_is_used_again_and_an_old_one_is_not(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        before = await house.disk.meter.usage(SessionUsageParams(session="bob"))
        house.write("new", 100_000)
        house.now += 10
        assert await house.disk.meter.usage(SessionUsageParams(session="bob")) == before
        house.now += 1
        assert (await used(house))[0] >= 100_000


@in_trio
async def test_all_are_told_by_name_and_those_that_cannot_be_measured_as_they_were(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        for name in ("eve", "bob"):
            await house.ensure(name)
        house.workers.error = Unavailable("the launcher is gone")
        told = (await house.disk.meter.usage(ALL)).sessions
        assert [(each.session, each.measured_at, each.complete) for each in told] == [
            ("bob", 0, False),
            ("eve", 0, False),
        ]
        with pytest.raises(Unavailable):
            await house.disk.meter.usage(SessionUsageParams(session="bob"))
        house.workers.error = None
        told = (await house.disk.meter.usage(ALL)).sessions
        assert [each.measured_at for each in told] == [NOW, NOW]
        assert {each.limit_bytes for each in told} == {1 << 30}
        house.policies.error = PolicyDenied("its profile is gone")
        assert {each.limit_bytes for each in (await house.disk.meter.usage(ALL)).sessions} == {0}


@in_trio
async def test_where_the_kernel_counts_it_is_asked(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        house.quota.kind = "project"
        with pytest.raises(DiskFailed, match="does not tell"):
            await used(house)
        house.quota.used[1001] = (12_345, 6)
        assert await used(house) == (12_345, 0, 6)


@in_trio
async def test_nobody_is_not_measured(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        with pytest.raises(NotFound):
            await house.disk.meter.usage(SessionUsageParams(session="bob"))
        assert (await house.disk.meter.usage(ALL)).sessions == ()
