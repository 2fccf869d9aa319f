"""`services.process_looking`: asking changes nothing."""

from __future__ import annotations

import pytest
import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.errors import (
    DeadlineExceeded,
)
from coworkd.model.process import ProcessInfo
from coworkd.services.process_looking import Looker
from tests.unit.services.process_house import in_trio, jump, open_house, settle

NAME = calls.ProcessName(process="one")


@in_trio
async def test_wait_past_its_timeout_changes_nothing() -> None:
    async with open_house() as house:
        await house.start()
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(DeadlineExceeded):
                    await house.processes.wait(calls.WaitProcess(process="one", timeout_s=3))

            nursery.start_soon(call)
            await settle()
            jump(4)
        assert (await house.processes.get(NAME)).state == "running"


@in_trio
async def test_list_is_by_session() -> None:
    async with open_house() as house:
        await house.start()
        await house.start(id="two", session="play")
        found = await house.processes.list(calls.ProcessListParams(session="play"))
        assert [info.process for info in found.processes] == ["two"]
        assert len((await house.processes.list(calls.ProcessListParams())).processes) == 2
        assert (house.processes.count("work"), house.processes.count("none")) == (1, 0)
        assert house.processes.state_counts() == {"starting": 0, "running": 2, "exited": 0}


@in_trio
async def test_what_it_takes_is_added_where_somebody_measures() -> None:
    async def measured(info: ProcessInfo) -> ProcessInfo:
        return structs.replace(info, pid=77)

    async with open_house() as house:
        await house.start()
        table = house.processes._table
        assert (await Looker(table=table).get(NAME)).pid == 12
        assert (await Looker(table=table, measured=measured).get(NAME)).pid == 77
