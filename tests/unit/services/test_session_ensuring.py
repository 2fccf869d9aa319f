from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    DiskFailed,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    MountFailed,
    NotFound,
    PolicyDenied,
    SandboxSetupFailed,
)
from coworkd.model.policy import LimitsRequest
from coworkd.services import session_ensuring as room
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import folder, open_house, record


@in_trio
async def test_ensure_makes_a_session_whole(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        done = await house.ensure(env={"A": "1"}, folders=[folder("src")])
        assert done.created
        assert (done.session.uid, done.session.home, done.session.state) == (1001, "/sessions/bob", "ready")
        assert house.home().is_dir()
        assert house.stored()["bob"].state == "ready"
        assert house.stored()["bob"].env == {"A": "1"}
        assert house.launcher.open["bob"].uid == 1001
        assert house.audit.kinds == ["session.create"]
        assert [event.name for event in house.events.published] == ["folder.mounted", "session.created"]


@in_trio
async def test_ensure_twice_is_ensure_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.launcher.mounts.fails["src"] = MountFailed("no", errno=errno.ENOENT)
        house.launcher.told = ("memory is not limited",)
        house.policies.narrowed = ("pids",)
        wanted: dict[str, Any] = {"folders": [folder("src", required=False)], "profile": "default"}
        first = await house.ensure(**wanted)
        second = await house.ensure(**wanted)
        assert (first.created, second.created) == (True, False)
        assert first.session == second.session
        assert first.failed_folders == second.failed_folders
        assert [failed.name for failed in first.failed_folders] == ["src"]
        assert first.narrowed == second.narrowed == ("pids", "memory is not limited")
        assert house.audit.kinds == ["session.create"]
        assert house.trace == ["open bob"]


@in_trio
async def test_ensure_without_words_keeps_what_was_asked_before(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")], env={"A": "1"}, limits=LimitsRequest(pids_max=5), profile="strict")
        before = house.stored()
        await house.ensure()
        assert house.stored() == before


@in_trio
async def test_ensure_finishes_what_a_crash_left(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.records.save(record(state="incomplete", uid=1007, gid=1007))
        await house.restart()
        with pytest.raises(InvalidState, match=r"call session\.ensure again"):
            await house.sessions.open("bob")
        done = await house.ensure(resume="new")
        assert (done.created, done.session.uid, done.session.state) == (False, 1007, "ready")
        assert (await house.sessions.open("bob")).uid == 1007


@in_trio
async def test_ensure_judges_resume(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        with pytest.raises(NotFound):
            await house.ensure(resume="existing")
        await house.ensure(resume="new")
        with pytest.raises(AlreadyExists):
            await house.ensure(resume="new")
        assert not (await house.ensure(resume="existing")).created


@in_trio
async def test_ensure_refuses_before_anything_is_made(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for name in ("root", "Bob", "", "../x", "a" * 33):
            with pytest.raises(InvalidParams):
                await house.ensure(name)
        with pytest.raises(PolicyDenied):
            await house.ensure(folders=[folder("a", source=str(tmp_path))])
        house.policies.error = PolicyDenied("no")
        with pytest.raises(PolicyDenied):
            await house.ensure()
        assert house.stored() == {}
        assert (house.audit.records, house.trace) == ([], [])


@in_trio
async def test_ensure_does_nothing_that_the_audit_log_does_not_have(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.audit.full.add("session.create")
        with pytest.raises(DiskFailed):
            await house.ensure()
        assert house.stored() == {}
        assert not house.home().exists()
        house.audit.full.clear()
        assert (await house.ensure()).created


@pytest.mark.parametrize("step", ["open", "make"])
def test_ensure_takes_back_a_session_that_could_not_be_made(tmp_path: Path, step: str) -> None:
    @in_trio
    async def run() -> None:
        async with open_house(tmp_path) as house:
            fails = house.launcher.fails if step == "open" else house.homes.fails
            fails[step] = MountFailed("no such folder")
            with pytest.raises(MountFailed):
                await house.ensure()
            assert house.stored() == {}
            assert not house.home().exists()
            assert house.audit.kinds == ["session.create", "session.delete"]
            assert house.sessions.count == 0
            fails.clear()
            assert (await house.ensure()).created

    run()


@in_trio
async def test_ensure_that_fails_loses_no_home_that_was_there(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.home().mkdir(parents=True)
        (house.home() / "work").write_text("precious")
        house.launcher.fails["open"] = MountFailed("no")
        with pytest.raises(MountFailed):
            await house.ensure()
        assert house.stored() == {}
        assert (house.home() / "work").read_text() == "precious"


@in_trio
async def test_ensure_that_is_cancelled_takes_back(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        with trio.CancelScope() as scope:
            scope.cancel()
            await house.ensure()
        assert house.stored() == {}


@in_trio
async def test_ensure_changes_an_idle_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        done = await house.ensure(folders=[folder("src")])
        assert [grant.name for grant in done.session.folders] == ["src"]
        assert house.trace == ["open bob", "mount src ro"]
        assert house.audit.kinds == ["session.create", "session.ensure"]


@in_trio
async def test_ensure_changes_nothing_under_a_running_command(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        for change in ({"profile": "other"}, {"limits": LimitsRequest(pids_max=1)}):
            with pytest.raises(InvalidState, match="commands of session bob run"):
                await house.ensure(**change)
        await house.ensure(env={"A": "1"})
        assert house.trace == ["open bob"]
        assert house.stored()["bob"].env == {"A": "1"}


@in_trio
async def test_a_change_that_fails_leaves_the_old_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        before = house.stored()
        house.launcher.fails["open"] = MountFailed("no")
        with pytest.raises(MountFailed):
            await house.ensure(profile="strict")
        assert house.stored() == before
        house.launcher.fails.clear()
        assert (await house.sessions.open("bob")).profile == "default"
        assert house.trace == ["open bob", "close bob", "stop bob", "open bob"]


@in_trio
async def test_a_change_that_a_crash_cut_short_is_never_half_used(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.fails["open"] = MountFailed("no")
        house.launcher.fails["close"] = SandboxSetupFailed("no")
        with pytest.raises(CoworkError):
            await house.ensure(profile="strict")
        assert house.stored()["bob"].state == "incomplete"
        house.launcher.fails.clear()
        await house.restart()
        with pytest.raises(InvalidState):
            await house.sessions.open("bob")
        await house.ensure()
        assert house.trace == ["open bob", "close bob", "stop bob", "open bob"]
        assert house.stored()["bob"].state == "ready"


@in_trio
async def test_sessions_made_at_once_have_uids_of_their_own(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(house.ensure, f"s{number}")
        uids = [known.uid for known in house.stored().values()]
        assert sorted(uids) == list(range(1001, 1009))


@in_trio
async def test_the_same_session_asked_for_at_once_is_made_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        made: list[bool] = []

        async def ensure() -> None:
            made.append((await house.ensure()).created)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ensure)
        assert sorted(made) == [False, False, False, True]
        assert house.audit.kinds == ["session.create"]


@in_trio
async def test_sessions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SESSION_LIMIT", 1)
    async with open_house(tmp_path) as house:
        await house.ensure()
        with pytest.raises(LimitExceeded, match="delete some"):
            await house.ensure("eve")
        await house.ensure()


@in_trio
async def test_the_audit_log_has_names_of_variables_and_no_values(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(env={"TOKEN": "s3cret"})
        fields = house.audit.fields("session.create")
        assert fields["env_names"] == ["TOKEN"]
        assert "s3cret" not in repr(fields)
