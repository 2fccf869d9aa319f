from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.model.calls import SessionName
from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState, Unavailable
from coworkd.model.uids import MAX_UID
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import SessionHouse, open_house, record


def take(house: SessionHouse, *uids: int) -> None:
    """Accounts of the new root file system."""
    house.homes.other_owners = lambda: dict.fromkeys(uids, "admin")  # type: ignore[method-assign]


async def state(house: SessionHouse, name: str = "bob") -> str:
    return (await house.sessions.get(SessionName(session=name))).session.state


@in_trio
async def test_a_clash_is_resolved_without_being_asked(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        take(house, 1001)
        await house.restart()
        assert await state(house) == "incomplete"
        with pytest.raises(InvalidState, match=r"session\.ensure"):
            await house.sessions.open("bob")
        house.sessions._recovering.settle()
        await house.sessions._recovering.serve()
        assert house.trace[-1] == f"reown bob 1001 {MAX_UID}"
        assert (house.stored()["bob"].uid, house.stored()["bob"].reown_from) == (MAX_UID, ())
        assert await state(house) == "ready"
        told = house.audit.fields("session.recover")
        assert (told["uid"], told["uids_before"]) == (MAX_UID, ["1001"])
        assert "admin" in told["reason"]
        assert [event.name for event in house.events.published][-1] == "session.recovered"
        assert (await house.sessions.open("bob")).uid == MAX_UID


@in_trio
async def test_ensure_does_not_wait_for_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        take(house, 1001)
        await house.restart()
        done = await house.ensure()
        assert (done.session.uid, done.session.state, done.created) == (MAX_UID, "ready", False)
        assert house.homes.uids["bob"] == MAX_UID


@in_trio
async def test_a_session_in_which_commands_run_keeps_what_it_has(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        take(house, 1001)
        house.processes.running["bob"] = 1
        await house.restart()
        house.sessions._recovering.settle()
        await house.sessions._recovering.serve()
        assert (await house.sessions.open("bob")).uid == 1001
        assert not [each for each in house.trace if each.startswith("reown")]


@in_trio
async def test_a_home_without_a_record_is_adopted_with_its_uid(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        house.homes.make("left", 1444)
        (house.home("left") / "work").write_text("precious")
        await house.restart()
        assert await state(house, "left") == "incomplete"
        await house.sessions._recovering.serve()
        assert house.audit.fields("session.recover")["uid"] == 1444
        done = await house.ensure("left", resume="existing")
        assert (done.session.uid, done.session.state) == (1444, "ready")
        assert (house.home("left") / "work").read_text() == "precious"


@in_trio
async def test_a_broken_record_loses_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        (tmp_path / "state/sessions/bob.json").write_bytes(b"\0" * 100)
        await house.restart()
        assert await state(house) == "incomplete"
        assert (await house.ensure()).session.uid == 1001
        assert (tmp_path / "state/sessions/bob.json.broken").exists()


@in_trio
async def test_a_later_coworkds_session_is_left_alone(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        path = tmp_path / "state/sessions/bob.json"
        later = path.read_text().replace('"format": 1', '"format": 9')
        path.write_text(later)
        await house.restart()
        for call in (
            house.ensure,
            lambda: house.sessions.open("bob"),
            lambda: house.sessions.get(SessionName(session="bob")),
        ):
            with pytest.raises(InvalidState, match="later coworkd"):
                await call()
        assert (await house.ensure("eve")).session.uid == 1002
        assert path.read_text() == later


@in_trio
async def test_what_cannot_be_done_now_is_done_by_ensure(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        take(house, 1001)
        await house.restart()
        house.reowner.error = Unavailable("no worker")
        await house.sessions._recovering.serve()
        assert await state(house) == "incomplete"
        with pytest.raises(Unavailable):
            await house.ensure()
        house.reowner.error = None
        assert (await house.ensure()).session.uid == MAX_UID


@in_trio
async def test_nothing_is_given_that_the_audit_log_does_not_have(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        await house.ensure()
        take(house, 1001)
        await house.restart()
        house.audit.full.add("session.recover")
        with pytest.raises(DiskFailed):
            await house.ensure()
        assert house.homes.uids["bob"] == 1001
        assert house.stored()["bob"].uid == 1001


@in_trio
async def test_a_skeleton_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, serve=False) as house:
        with pytest.raises(InvalidParams, match="no skeleton is configured"):
            await house.ensure(skeleton=True)
        assert house.stored() == {}
        assert (await house.ensure(skeleton=False)).created


class Crash(BaseException):
    """The power fails here."""


def crashing(house: SessionHouse, at: int) -> Callable[[], None]:
    """Have the power fail at the `at`-th effect: before it for even numbers, after it for odd ones. The answer mends it."""
    count = 0
    real_audit, real_save, real_reown = house.audit.record, house.records.save, house.reowner.reown

    def step() -> None:
        nonlocal count
        count += 1
        if count > at:
            raise Crash

    async def audit(*arguments: object) -> None:
        step()
        await real_audit(*arguments)  # type: ignore[arg-type]
        step()

    def save(wanted: object) -> None:
        step()
        real_save(wanted)  # type: ignore[arg-type]
        step()

    async def reown(*arguments: object) -> int:
        step()
        given = await real_reown(*arguments)  # type: ignore[arg-type]
        step()
        return given

    house.audit.record, house.records.save, house.reowner.reown = audit, save, reown  # type: ignore[method-assign,assignment]

    def mend() -> None:
        house.audit.record, house.records.save = real_audit, real_save  # type: ignore[method-assign]
        house.reowner.reown = real_reown  # type: ignore[method-assign]

    return mend


@pytest.mark.parametrize("at", range(8))
def test_a_crash_at_any_step_converges(tmp_path: Path, at: int) -> None:
    @in_trio
    async def run() -> None:
        async with open_house(tmp_path, serve=False) as house:
            house.records.save(record(uid=1005, gid=1005))
            house.homes.make("bob", 1005)
            take(house, 1005)
            await house.restart()
            mend = crashing(house, at)
            with pytest.raises(Crash):
                await house.ensure()
            mend()
            await house.restart()
            done = await house.ensure()
            assert (done.session.uid, done.session.state) == (MAX_UID, "ready")
            assert house.homes.uids["bob"] == MAX_UID
            assert house.stored()["bob"].reown_from == ()
            assert os.listdir(tmp_path / "state/sessions") in (["bob.json", ".spare"], [".spare", "bob.json"])

    run()
