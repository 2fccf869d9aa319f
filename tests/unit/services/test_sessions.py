from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import structs

from coworkd.model.calls import SessionDelete, SessionName
from coworkd.model.errors import (
    InvalidParams,
    NotFound,
    Unavailable,
)
from tests.unit.services.process_house import in_trio, settle_threads
from tests.unit.services.session_house import SessionHouse, open_house


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


class Crash(BaseException):
    """kill -9 comes here."""


EFFECTS = (
    ("audit", "record"),
    ("records", "save"),
    ("records", "remove"),
    ("homes", "make"),
    ("homes", "remove"),
    ("launcher", "open_session"),
    ("launcher", "close_session"),
    ("processes", "end_session"),
)


class Kill:
    """Ends coworkd at the `at`-th moment: before and after each of its effects there is one. `moments` counts them."""

    def __init__(self, house: SessionHouse, at: int) -> None:
        self.moments = 0
        self._at = at
        self._house = house
        for owner, name in EFFECTS:
            part = getattr(house, owner)
            real = getattr(part, name)
            setattr(part, name, self._awaited(real) if inspect.iscoroutinefunction(real) else self._called(real))

    def mend(self) -> None:
        for owner, name in EFFECTS:
            delattr(getattr(self._house, owner), name)

    def _step(self) -> None:
        self.moments += 1
        if self.moments > self._at:
            raise Crash  # and everything after it, that is: a process that was killed does nothing more

    def _called(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._step()
            done = real(*arguments)
            self._step()
            return done

        return call

    def _awaited(self, real: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*arguments: Any) -> Any:
            self._step()
            done = await real(*arguments)
            self._step()
            return done

        return call


async def converge(house: SessionHouse, at: int, call: Callable[[], Any]) -> int:
    """`call` killed at that moment; how many moments there were."""
    kill = Kill(house, at)
    with contextlib.suppress(Crash):
        await call()
    kill.mend()
    house.processes.running.clear()
    await house.restart()
    return kill.moments


NEVER = 1000


@in_trio
async def test_ensure_converges_whenever_it_was_killed(tmp_path: Path) -> None:
    async with open_house(tmp_path / "whole", serve=False) as house:
        moments = await converge(house, NEVER, house.ensure)
        expected = house.stored()
    assert moments >= 10
    for at in range(moments):
        async with open_house(tmp_path / str(at), serve=False) as house:
            await converge(house, at, house.ensure)
            done = await house.ensure()
            assert (done.session.uid, done.session.state) == (1001, "ready"), at
            assert house.stored() == expected, at
            assert (await house.sessions.open("bob")).uid == 1001
            assert os.listdir(house.homes.directory) == ["bob"], at


@in_trio
async def test_delete_converges_whenever_it_was_killed(tmp_path: Path) -> None:
    async def delete(house: SessionHouse) -> None:
        await house.sessions.delete(SessionDelete(session="bob", force=True))

    async with open_house(tmp_path / "whole", serve=False) as house:
        await house.ensure()
        moments = await converge(house, NEVER, partial(delete, house))
    assert moments >= 12
    for at in range(moments):
        async with open_house(tmp_path / str(at), serve=False) as house:
            await house.ensure()
            (house.home() / "work").write_text("x")
            await converge(house, at, partial(delete, house))
            with contextlib.suppress(NotFound):
                await delete(house)
            assert house.stored() == {}, at
            assert os.listdir(house.homes.directory) == [], at
            assert house.launcher.open == {}, at
            assert set(os.listdir(tmp_path / str(at) / "state/sessions")) == {".spare"}, at
            assert (await house.ensure()).created, at


async def restart_with_two(house: SessionHouse) -> None:
    """Commands run in both since before."""
    await house.ensure()
    await house.ensure("eve")
    await house.restart()
    house.processes.running.update(bob=1, eve=1)


@in_trio
async def test_a_session_that_goes_while_others_are_taken_over_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        await restart_with_two(house)
        opening = house.sessions.open

        async def open_and_delete(name: str) -> Any:
            if name == "bob":
                await house.sessions.delete(SessionDelete(session="eve", force=True))
            return await opening(name)

        monkeypatch.setattr(house.sessions, "open", open_and_delete)
        assert await house.sessions.reopen() == ()


@in_trio
async def test_a_session_that_hangs_holds_no_other_up_when_they_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        await restart_with_two(house)
        opening, goes_on, opened = house.sessions.open, trio.Event(), list[str]()

        async def open_late(name: str) -> Any:
            if name == "bob":
                await goes_on.wait()
            view = await opening(name)
            opened.append(name)
            return view

        monkeypatch.setattr(house.sessions, "open", open_late)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.reopen)
            await settle_threads()
            assert opened == ["eve"]
            goes_on.set()
        assert opened == ["eve", "bob"]


@in_trio
async def test_a_session_whose_deleting_goes_on_after_a_restart_is_not_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        house.records.save(structs.replace(house.stored()["bob"], state="deleting"))
        await house.restart()
        house.processes.running.update(bob=1)
        assert await house.sessions.reopen() == ()
