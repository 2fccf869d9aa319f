from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionDelete
from coworkd.model.errors import (
    DiskFailed,
    InvalidParams,
    InvalidState,
    NotFound,
)
from coworkd.services.session_records import RecordStore
from coworkd.services.session_table import SessionTable
from tests.unit.services.process_house import NOW, in_trio, settle
from tests.unit.services.session_house import OwnHomes, open_house, record


@in_trio
async def test_names_that_nobody_works_on_are_not_kept(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(house.sessions.refresh)
            nursery.start_soon(house.sessions.delete, SessionDelete(session="bob"))
        with pytest.raises(NotFound):
            await house.ensure("eve", resume="existing")
        assert house.sessions._table.locks == {}


@in_trio
async def test_what_is_on_disk_comes_first(tmp_path: Path) -> None:
    table = SessionTable(RecordStore(str(tmp_path / "state")))
    await table.load(OwnHomes(str(tmp_path / "homes"), []), NOW)
    await table.keep(record())
    assert table.find("bob") == record()
    (tmp_path / "state" / "sessions").rename(tmp_path / "away")
    with pytest.raises(DiskFailed):
        await table.keep(record(profile="other"))
    assert table.find("bob") == record()


@in_trio
async def test_a_session_that_is_half_made_or_half_gone_is_not_ready(tmp_path: Path) -> None:
    table = SessionTable(RecordStore(str(tmp_path / "state")))
    await table.load(OwnHomes(str(tmp_path / "homes"), []), NOW)
    with pytest.raises(InvalidParams):
        table.find("../eve")
    with pytest.raises(NotFound):
        table.find_ready("bob")
    for state, said in (("incomplete", "ensure again"), ("deleting", "is being deleted")):
        await table.keep(record(state=state))
        with pytest.raises(InvalidState, match=said):
            table.find_ready("bob")
    await table.keep(record())
    assert table.info(table.find_ready("bob")).processes == 0


@in_trio
async def test_one_verb_at_a_time_works_on_a_session(tmp_path: Path) -> None:
    table = SessionTable(RecordStore(str(tmp_path / "state")))
    order: list[str] = []

    async def work(name: str, word: str) -> None:
        async with table.in_turn(name):
            order.append(f"{word} begins")
            await settle()
            order.append(f"{word} ends")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "bob", "a")
        nursery.start_soon(work, "bob", "b")
        await trio.testing.wait_all_tasks_blocked()
    first, second = sorted("ab", key=lambda word: order.index(f"{word} begins"))
    assert order == [f"{first} begins", f"{first} ends", f"{second} begins", f"{second} ends"]
    assert table.busy == set()
