from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionDelete, SessionName
from coworkd.model.errors import (
    InvalidParams,
    NotFound,
    Unavailable,
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


@in_trio
async def test_a_disk_that_cannot_be_used_lets_nothing_begin_but_a_session_be_deleted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure("bob")
        house.storage.unusable = "the session disk is read-only"
        with pytest.raises(Unavailable, match="read-only"):
            await house.ensure("eve")
        with pytest.raises(Unavailable, match="read-only"):
            await house.sessions.open("bob")
        assert [info.name for info in (await house.sessions.list()).sessions] == ["bob"]
        await house.sessions.delete(SessionDelete(session="bob"))
        assert len(house.storage.freed_bytes) == 1
