from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionDelete, SessionName, SetPolicy
from coworkd.model.egress import EgressSettings, SessionEgress
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    DiskFailed,
    InternalError,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    MountFailed,
    NotFound,
    PolicyDenied,
    SandboxSetupFailed,
    Unavailable,
)
from coworkd.model.launch import OpenSession
from coworkd.model.policy import LimitsRequest
from coworkd.model.ports import OpenedSession
from coworkd.services import session_ensuring as room
from tests.unit.services.process_house import in_trio, settle
from tests.unit.services.session_house import folder, open_house, record


async def until(true: Callable[[], bool]) -> None:
    """Let the others run; what touches the disk runs in threads, which no virtual clock waits for."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        await trio.lowlevel.checkpoint()


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
async def test_sessions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SESSION_LIMIT", 1)
    async with open_house(tmp_path) as house:
        await house.ensure()
        with pytest.raises(LimitExceeded, match="delete some"):
            await house.ensure("eve")
        await house.ensure()


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
async def test_the_audit_log_has_names_of_variables_and_no_values(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(env={"TOKEN": "s3cret"})
        fields = house.audit.fields("session.create")
        assert fields["env_names"] == ["TOKEN"]
        assert "s3cret" not in repr(fields)


def settings(*allowed: str) -> dict[str, Any]:
    return {"network": {"allowedDomains": list(allowed), "deniedDomains": []}}


@in_trio
async def test_what_a_session_may_reach_changes_while_commands_run(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        house.policies.egress_narrowed = ("egress: evil.example stays out",)
        done = await house.sessions.set_policy(
            SetPolicy(session="bob", egress=settings("index.example", "evil.example"))
        )
        assert (done.closed, done.narrowed) == (3, ("egress: evil.example stays out",))
        assert [layer["source"] for layer in done.effective["egress"]] == ["egress/default.json", "request"]
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json", "request"]
        assert house.egress.close_forbidden == [True]
        assert house.stored()["bob"].egress == settings("index.example", "evil.example")
        assert house.audit.fields("policy.set")["allowed"] == ["index.example", "evil.example"]
        assert house.trace == ["open bob"]
        kept = await house.sessions.policy(SessionName(session="bob"))
        assert kept.profile == "default"
        assert len(kept.egress) == 2


@in_trio
async def test_profile_and_limits_change_only_under_an_idle_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        with pytest.raises(InvalidState, match="run on its profile"):
            await house.sessions.set_policy(SetPolicy(session="bob", profile="strict"))
        assert "policy.set" not in house.audit.kinds
        house.processes.running.clear()
        await house.sessions.set_policy(SetPolicy(session="bob", profile="strict", limits=LimitsRequest(nofile=64)))
        assert house.trace == ["open bob", "close bob", "stop bob"]
        await house.sessions.open("bob")
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/strict.json"]
        assert house.stored()["bob"].limits.nofile == 64


@in_trio
async def test_settings_with_a_mistake_change_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        before = house.stored()["bob"]
        with pytest.raises(InvalidParams):
            await house.sessions.set_policy(SetPolicy(session="bob", egress={"netwrk": {}}))
        house.audit.full.add("policy.set")
        with pytest.raises(DiskFailed):
            await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        assert house.stored()["bob"] == before
        assert house.egress.close_forbidden == []


@in_trio
async def test_what_it_may_reach_outlives_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        await house.restart()
        house.processes.running["bob"] = 1
        await house.sessions.reopen()
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json", "request"]


@in_trio
async def test_empty_settings_take_earlier_ones_away(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        await house.sessions.set_policy(SetPolicy(session="bob", egress={}))
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json"]
        assert house.stored()["bob"].egress is None


@in_trio
async def test_policies_that_changed_on_disk_reach_every_open_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure("bob")
        await house.ensure("eve")
        await house.sessions.delete(SessionDelete(session="eve"))
        house.policies.egress = SessionEgress(settings=(EgressSettings(source="new", preset_env={"MIRROR": "url"}),))
        await house.sessions.refresh()
        assert house.egress.served == {"bob": house.policies.egress}
        assert (await house.sessions.open("bob")).tool_variables == {"MIRROR": "url"}
        house.policies.error = NotFound("the profile is gone")
        await house.sessions.refresh()
        assert len(house.egress.served["bob"].settings) == 0
        assert (await house.sessions.open("bob")).tool_variables == {}


@in_trio
async def test_a_session_that_is_being_opened_gets_the_policies_that_changed_meanwhile(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.restart()
        reached, goes_on = trio.Event(), trio.Event()
        open_session = house.launcher.open_session

        async def slow(request: OpenSession, /) -> OpenedSession:
            reached.set()
            await goes_on.wait()
            return await open_session(request)

        house.launcher.open_session = slow  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.open, "bob")
            await reached.wait()
            house.policies.egress = SessionEgress(settings=(EgressSettings(source="narrower"),))
            nursery.start_soon(house.sessions.refresh)
            await settle()
            goes_on.set()
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["narrower"]


@in_trio
async def test_a_session_that_cannot_be_told_of_its_policies_reaches_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.egress.error = InternalError("coworkd-egress refused: too many open files")
        await house.sessions.refresh()
        assert house.egress.served == {}


@in_trio
async def test_a_policy_that_cannot_be_set_changes_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        before = house.stored()["bob"]
        house.egress.error = InternalError("coworkd-egress refused: too many open files")
        with pytest.raises(InternalError):
            await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        assert house.stored()["bob"] == before
        house.launcher.fails["close"] = Unavailable("the launcher is away")
        with pytest.raises(Unavailable):
            await house.sessions.set_policy(SetPolicy(session="bob", profile="strict"))
        assert house.stored()["bob"] == before
        assert (await house.sessions.policy(SessionName(session="bob"))).profile == "default"


@in_trio
async def test_a_policy_whose_caller_has_gone_holds_as_a_whole(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        record = house.audit.record
        with trio.CancelScope() as caller:

            async def record_and_go(kind: str, fields: Mapping[str, Any], /) -> None:
                await record(kind, fields)
                caller.cancel()

            house.audit.record = record_and_go  # type: ignore[method-assign]
            await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        assert house.stored()["bob"].egress == settings("index.example")
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json", "request"]


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
