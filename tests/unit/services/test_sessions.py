from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionName
from coworkd.model.errors import (
    InvalidParams,
    NotFound,
)
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import open_house


@in_trio
async def test_open_opens_anew_for_a_new_launcher_and_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.sessions.open("bob")
        house.launcher.restart()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(house.sessions.open, "bob")
        assert house.trace == ["open bob", "open bob"]
        with pytest.raises(NotFound):
            await house.sessions.open("eve")


@in_trio
async def test_a_hanging_session_holds_up_no_other(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, trio.open_nursery() as nursery:
        opening = house.launcher.open_session

        async def hang(request: Any, /) -> Any:
            if request.session == "slow":
                await trio.sleep_forever()
            return await opening(request)

        house.launcher.open_session = hang  # type: ignore[method-assign]
        nursery.start_soon(house.ensure, "slow")
        await trio.testing.wait_all_tasks_blocked()
        assert (await house.ensure("fast")).created
        house.launcher.open_session = opening  # type: ignore[method-assign]
        nursery.cancel_scope.cancel()


@in_trio
async def test_list_and_get_tell_sessions_by_name_with_their_commands(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure("eve")
        await house.ensure("bob")
        house.processes.running["eve"] = 3
        listed = (await house.sessions.list()).sessions
        assert [(info.name, info.processes) for info in listed] == [("bob", 0), ("eve", 3)]
        assert (await house.sessions.get(SessionName(session="eve"))).session == listed[1]
        with pytest.raises(InvalidParams):
            await house.sessions.get(SessionName(session="../eve"))
