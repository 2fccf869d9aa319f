from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd.config import RetentionConfig
from tests.unit.services.disk_house import open_disk_house
from tests.unit.services.process_house import in_trio


@in_trio
async def test_the_watch_and_the_policy_work_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_disk_house(tmp_path, RetentionConfig(max_sessions=1, announce_s=60)) as house:
        looks: list[float] = []

        async def look() -> None:
            looks.append(trio.current_time())

        async def sleep(seconds: float) -> None:
            house.now += seconds
            await trio.lowlevel.checkpoint()

        house.disk.watch.look = look  # type: ignore[method-assign]
        for name in ("bob", "eve"):
            await house.ensure(name)
            house.now += 1
        monkeypatch.setattr(trio, "sleep", sleep)
        async with trio.open_nursery() as nursery:
            await nursery.start(house.disk.serve)
            while "bob" in house.sessions.table.records:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert looks
        assert set(house.stored()) == {"eve"}
        assert [told["session"] for told in house.events_of("session.retention")] == ["bob"]
