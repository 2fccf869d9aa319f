from __future__ import annotations

from pathlib import Path

import pytest
import trio

from coworkd.model.calls import SessionDelete, SessionName
from coworkd.model.calls_limits import PauseSession, SessionPaused
from coworkd.model.errors import DiskFailed, InvalidState, NotFound, Unavailable
from tests.unit.services.process_house import in_trio, jump, settle
from tests.unit.services.session_house import SessionHouse, open_house

BOB = PauseSession(session="bob")


async def started(house: SessionHouse) -> None:
    await house.ensure()
    house.processes.running["bob"] = 1
    house.trace.clear()


@in_trio
async def test_pause_and_resume(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        paused = await house.sessions.pause(BOB)
        assert (paused.frozen, paused.session.paused, house.stored()["bob"].paused) == (True, True, True)
        assert house.trace == ["freeze bob"]
        assert (await house.sessions.get(SessionName(session="bob"))).session.paused
        going = await house.sessions.resume(BOB)
        assert (going.frozen, going.session.paused, house.stored()["bob"].paused) == (False, False, False)
        assert house.trace == ["freeze bob", "thaw bob"]
        assert house.audit.kinds[-2:] == ["session.pause", "session.resume"]
        assert [event.name for event in house.events.published][-2:] == ["session.paused", "session.resumed"]


@in_trio
async def test_no_command_begins_in_a_paused_session_and_its_files_stay_within_reach(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        await house.sessions.pause(BOB)
        with pytest.raises(InvalidState, match=r"session\.resume"):
            await house.sessions.open_for_command("bob")
        assert (await house.sessions.open("bob")).name == "bob"
        await house.sessions.resume(BOB)
        assert (await house.sessions.open_for_command("bob")).name == "bob"


@in_trio
async def test_twice_is_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        for _ in range(2):
            assert (await house.sessions.pause(BOB)).frozen
        for _ in range(2):
            assert not (await house.sessions.resume(BOB)).session.paused
        assert house.trace == ["freeze bob", "thaw bob"]
        assert len([event for event in house.events.published if event.name == "session.paused"]) == 1


async def pause_in_time(house: SessionHouse) -> bool:
    """Pause it while time passes; whether all of its commands stand still."""
    answers: list[SessionPaused] = []

    async def pause() -> None:
        answers.append(await house.sessions.pause(BOB))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause)
        while not answers:
            await settle()
            jump(0.02)
    return answers[0].frozen


@in_trio
async def test_the_last_of_them_is_waited_for(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        house.groups.freezes_after = 3
        assert await pause_in_time(house)
        house.groups.freezes_after = 10_000
        assert not await pause_in_time(house)


@in_trio
async def test_a_log_that_refuses_and_a_kernel_that_cannot_leave_it_running(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        house.audit.full.add("session.pause")
        with pytest.raises(DiskFailed):
            await house.sessions.pause(BOB)
        house.audit.full.clear()
        house.groups.error = Unavailable("no")
        with pytest.raises(Unavailable):
            await house.sessions.pause(BOB)
        house.groups.error = None
        assert not house.stored()["bob"].paused
        assert house.trace == []
        assert (await house.sessions.open_for_command("bob")).name == "bob"


@in_trio
async def test_paused_outlives_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        await house.sessions.pause(BOB)
        house.launcher.open.clear()
        await house.restart()
        await house.sessions.reopen()
        assert house.launcher.open["bob"].paused
        with pytest.raises(InvalidState):
            await house.sessions.open_for_command("bob")
        await house.sessions.resume(BOB)
        assert house.groups.frozen == {"bob": False}


@in_trio
async def test_whoever_opens_it_anew_says_whether_it_is_paused(tmp_path: Path) -> None:
    """It may have been frozen without a command in it, by a coworkd before, and gone on since then."""
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.sessions.pause(BOB)
        await house.restart()
        await house.sessions.resume(BOB)
        house.launcher.open.clear()
        await house.sessions.open_for_command("bob")
        assert not house.launcher.open["bob"].paused


@in_trio
async def test_a_session_that_is_not_open_can_be_paused(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.restart()
        house.groups.error = InvalidState("not asked")
        assert (await house.sessions.pause(BOB)).frozen
        assert (await house.ensure()).session.paused


@in_trio
async def test_a_paused_session_can_be_deleted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await started(house)
        await house.sessions.pause(BOB)
        await house.sessions.delete(SessionDelete(session="bob", force=True))
        assert not (await house.ensure()).session.paused
        with pytest.raises(NotFound):
            await house.sessions.pause(PauseSession(session="eve"))
