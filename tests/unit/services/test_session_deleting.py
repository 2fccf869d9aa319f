from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionDelete, SessionName
from coworkd.model.errors import (
    DiskFailed,
    InvalidState,
    NotFound,
)
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import open_house, record


async def until(true: Callable[[], bool]) -> None:
    """Let the others run; what touches the disk runs in threads, which no virtual clock waits for."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await trio.lowlevel.checkpoint()


@in_trio
async def test_delete_removes_all_in_order(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        (house.home() / "data").write_bytes(bytes(range(256)) * 100)
        house.trace.clear()
        removed = await house.sessions.delete(SessionDelete(session="bob"))
        assert (removed.freed_bytes or 0) >= 25_600
        assert house.trace == ["end bob", "close bob", "stop bob", "remove bob"]
        assert (house.stored(), house.sessions.count) == ({}, 0)
        with pytest.raises(NotFound):
            await house.sessions.get(SessionName(session="bob"))
        assert (await house.ensure()).created


@in_trio
async def test_delete_ends_commands_only_by_force(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 2
        with pytest.raises(InvalidState, match="use force"):
            await house.sessions.delete(SessionDelete(session="bob"))
        await house.sessions.delete(SessionDelete(session="bob", force=True))
        assert house.stored() == {}


@in_trio
async def test_a_deletion_that_failed_goes_on_when_asked_again(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.homes.fails["remove"] = DiskFailed("busy")
        with pytest.raises(DiskFailed):
            await house.sessions.delete(SessionDelete(session="bob"))
        assert house.stored()["bob"].state == "deleting"
        for call in (house.ensure, lambda: house.sessions.open("bob")):
            with pytest.raises(InvalidState):
                await call()
        house.homes.fails.clear()
        await house.sessions.delete(SessionDelete(session="bob"))
        assert house.stored() == {}


@in_trio
async def test_a_deletion_that_a_crash_cut_short_goes_on_at_start(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        house.records.save(record(state="deleting"))
        await house.restart()
        async with trio.open_nursery() as nursery:
            await nursery.start(house.sessions.serve)
            await until(lambda: house.sessions.count == 0)
            nursery.cancel_scope.cancel()
        assert house.stored() == {}
        assert not house.home().exists()


@in_trio
async def test_an_ephemeral_session_goes_with_its_link(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure("kept")
        await house.ensure(ephemeral=True)
        house.processes.running["bob"] = 1
        house.link.close()
        await until(lambda: house.sessions.count == 1)
        assert list(house.stored()) == ["kept"]


@in_trio
async def test_an_ephemeral_session_goes_when_coworkd_stops_or_starts(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(ephemeral=True)
        await house.sessions.end_ephemeral()
        assert house.stored() == {}
        await house.ensure(ephemeral=True)
        await house.restart()
        async with trio.open_nursery() as nursery:
            await nursery.start(house.sessions.serve)
            await until(lambda: house.sessions.count == 0)
            nursery.cancel_scope.cancel()
        assert house.stored() == {}


@in_trio
async def test_a_session_that_was_there_does_not_become_ephemeral(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.ensure(ephemeral=True)
        house.link.close()
        await house.sessions.end_ephemeral()
        assert list(house.stored()) == ["bob"]
