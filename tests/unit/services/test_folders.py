from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionDelete
from coworkd.model.errors import (
    AlreadyExists,
    DiskFailed,
    InvalidParams,
    InvalidState,
    MountFailed,
    NotFound,
    PolicyDenied,
    Unavailable,
)
from coworkd.services.folders import AT_ONCE, MENDS
from coworkd.services.folders_judging import FOLDER_LIMIT
from tests.unit.services.folder_house import GONE, kept, mount, pass_time, set_mode, states, told, unmount
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import folder, open_house, profile

# -- mount ---------------------------------------------------------------------------------------------------------


@in_trio
async def test_a_folder_is_mounted_while_commands_run(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        info = await mount(house, mode="rw")
        assert (info.state, info.mounted_as, info.path) == ("mounted", "guarded", "/sessions/bob/mnt/src")
        assert kept(house) == {"src": "rw"}
        assert house.trace == ["open bob", "mount src rw", "rule src rw"]
        assert house.audit.fields("folder.mount") == {
            "session": "bob",
            "name": "src",
            "source": "/srv/src",
            "mode": "rw",
            "required": True,
        }
        assert told(house) == ["folder.mounted"]
        [request] = house.launcher.mounts.asked
        assert (request.root, request.source, request.deletes, request.stage) == (b"/", b"srv/src", "deny", b"")
        assert request.journal.startswith(bytes(tmp_path / "state" / "folders" / "bob"))
        assert house.guard.watched["bob", "src"] == (b"/srv/src", "rw")


@in_trio
async def test_a_folder_of_a_closed_session_opens_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.restart()
        assert (await mount(house)).state == "mounted"
        assert house.sessions.is_open("bob")


@in_trio
async def test_mount_twice_is_mount_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        first = await mount(house)
        second = await mount(house)
        assert first == second
        assert (house.trace, house.audit.kinds) == (["open bob", "mount src ro"], ["session.create", "folder.mount"])
        for other in ({"mode": "rwd"}, {"source": "/srv/else"}):
            with pytest.raises(AlreadyExists, match="already"):
                await mount(house, **other)
        assert kept(house) == {"src": "ro"}


@in_trio
async def test_two_hosts_that_mount_one_name_at_once_get_one_folder(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        outcomes: list[str] = []

        async def ask(source: str) -> None:
            try:
                outcomes.append((await mount(house, source=source)).state)
            except AlreadyExists:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for source in ("/srv/a", "/srv/b", "/srv/a"):
                nursery.start_soon(ask, source)
        assert sorted(outcomes) in (["mounted", "mounted", "refused"], ["mounted", "refused", "refused"])
        assert len(house.stored()["bob"].folders) == len(house.launcher.mounts.there) == 1


@in_trio
async def test_a_required_folder_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a")])
        house.launcher.mounts.fails["src"] = GONE
        with pytest.raises(InvalidState, match="/srv/src is not there") as caught:
            await mount(house)
        assert (caught.value.details["folder"], caught.value.details["errno"]) == ("src", errno.ENOENT)
        assert kept(house) == {"a": "ro"}
        assert await states(house) == {"a": "mounted"}
        assert not house.folders.lacks("bob")


@in_trio
async def test_an_optional_folder_that_fails_is_kept_and_told(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.mounts.fails["src"] = GONE
        info = await mount(house, required=False)
        assert (info.state, info.error) == ("failed", "folder 'src': /srv/src is not there")
        assert told(house) == ["folder.failed"]
        assert kept(house) == {"src": "ro"}
        await house.sessions.open("bob")
        assert len(house.launcher.mounts.asked) == 1  # a share that is away costs no command its deadline
        house.launcher.mounts.fails.clear()
        assert (await mount(house, required=False)).state == "mounted"


@in_trio
async def test_nothing_is_mounted_that_the_audit_log_does_not_have(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a")])
        house.audit.full |= {"folder.mount", "folder.unmount", "folder.mode"}
        for call in (mount(house), unmount(house, "a"), set_mode(house, "rwd", "a")):
            with pytest.raises(DiskFailed):
                await call
        assert (house.launcher.mounts.of(), kept(house)) == ({"a": "ro"}, {"a": "ro"})


@in_trio
async def test_what_cannot_be_is_refused_before_anything_happens(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.policies.profile = profile("ro")
        await house.ensure()
        for error, fields in (
            (PolicyDenied, {"mode": "rw"}),
            (PolicyDenied, {"source": "/"}),
            (PolicyDenied, {"source": str(tmp_path)}),
            (InvalidParams, {"source": "srv"}),
            (InvalidParams, {"name": "../x"}),
            (InvalidParams, {"name": "a\nb"}),
        ):
            with pytest.raises(error):
                await mount(house, **fields)
        with pytest.raises(NotFound):
            await mount(house, session="eve")
        assert (house.audit.kinds, house.launcher.mounts.asked) == (["session.create"], [])


@in_trio
async def test_folders_are_bounded(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder(f"f{number}") for number in range(FOLDER_LIMIT)])
        assert len(house.launcher.mounts.of()) == FOLDER_LIMIT
        assert 1 < house.launcher.mounts.most_running <= AT_ONCE
        with pytest.raises(InvalidParams, match="at most"):
            await mount(house)


@in_trio
async def test_a_staged_folder_has_its_stage(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        assert (await mount(house, mode="staged")).mounted_as == "overlay"
        assert house.stages.there == {("bob", "src"): (b"/", b"srv/src")}
        [request] = house.launcher.mounts.asked
        assert (request.stage, request.journal) == (b"/state/stages/bob/src", b"")
        house.stages.error = DiskFailed("the disk is full", errno=errno.ENOSPC)
        with pytest.raises(DiskFailed, match="folder 'b'"):
            await mount(house, "b", "staged")
        assert kept(house) == {"src": "staged"}


@in_trio
async def test_deletes_ask_where_the_profile_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.policies.profile = profile(ask_delete=True)
        house.launcher.mounts.rwd_as = "guarded"
        await house.ensure()
        await mount(house, "a", "rw")
        await mount(house, "b", "rwd")
        assert [request.deletes for request in house.launcher.mounts.asked] == ["ask", "allow"]
        assert house.guard.rules == {("bob", "a"): ("rw", True), ("bob", "b"): ("rwd", False)}


@in_trio
async def test_an_ephemeral_sessions_folders_go_with_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(ephemeral=True)
        await mount(house, mode="rw")
        await mount(house, "held", "staged")
        await house.sessions.end_ephemeral()
        assert (house.launcher.mounts.there, house.guard.watched, house.stages.there) == ({}, {}, {})
        assert list((tmp_path / "state" / "folders").iterdir()) == []


# -- unmount -------------------------------------------------------------------------------------------------------


@in_trio
async def test_a_folder_is_unmounted_while_commands_run_and_what_uses_it_is_told(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a"), folder("src", mode="rw")])
        house.processes.running["bob"] = 1
        house.launcher.mounts.busy.add("src")
        gone = await unmount(house)
        assert (gone.busy, gone.leftovers) == (True, ("2 commands use it",))
        assert kept(house) == {"a": "ro"}
        assert list(house.launcher.mounts.of()) == list(await states(house)) == ["a"]
        assert ("bob", "src") not in house.guard.watched
        assert house.audit.fields("folder.unmount") == {"session": "bob", "name": "src", "reason": "asked for"}
        with pytest.raises(NotFound, match="it has a"):
            await unmount(house)


@in_trio
async def test_a_folder_of_a_closed_session_is_taken_out_of_its_record(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")])
        house.launcher.restart()
        assert await states(house) == {"src": "closed"}
        assert not (await unmount(house)).busy
        assert (kept(house), house.sessions.is_open("bob")) == ({}, False)


@in_trio
async def test_a_folder_that_cannot_be_unmounted_stays(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rw")])
        house.launcher.mounts.unmount_fails = MountFailed("it is being mounted; ask again", errno=errno.EBUSY)
        with pytest.raises(MountFailed):
            await unmount(house)
        assert kept(house) == {"src": "rw"}
        await house.ensure()
        assert house.guard.watched == {("bob", "src"): (b"/srv/src", "rw")}
        assert await states(house) == {"src": "mounted"}


@in_trio
async def test_a_record_that_cannot_be_written_brings_the_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")])

        def full(record: object) -> None:
            raise DiskFailed("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(house.records, "save", full)
            for call in (unmount(house), set_mode(house, "rwd"), mount(house, "more")):
                with pytest.raises(DiskFailed):
                    await call
        assert (kept(house), house.launcher.mounts.of()) == ({"src": "ro"}, {"src": "ro"})
        assert await states(house) == {"src": "mounted"}


# -- set_mode ------------------------------------------------------------------------------------------------------


@in_trio
async def test_a_guarded_folder_takes_another_rule_as_it_stands(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rw")])
        house.processes.running["bob"] = 1
        assert (await set_mode(house, "rwd")).mode == "rwd"
        assert house.audit.fields("folder.mode") == {"session": "bob", "name": "src", "mode": "rwd", "before": "rw"}
        assert (await set_mode(house, "rw")).mode == "rw"
        assert house.trace == ["open bob", "mount src rw", "rule src rw", "rule src rwd", "rule src rw"]
        assert told(house) == ["folder.mounted", "folder.mode", "folder.mode"]
        assert kept(house) == {"src": "rw"}


@in_trio
async def test_another_mode_is_another_mount(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")])
        house.launcher.mounts.busy.add("src")
        info = await set_mode(house, "rwd")
        assert (info.mode, info.mounted_as, info.degraded) == ("rwd", "idmapped", ("2 commands use it",))
        assert house.trace[1:] == ["mount src ro", "unmount src", "mount src rwd"]
        assert (await set_mode(house, "rwd")).mode == "rwd"
        assert house.audit.kinds.count("folder.mode") == 1


@in_trio
async def test_a_mode_that_cannot_be_leaves_the_old_one(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rw")])
        house.guard.error = Unavailable("it does not answer")
        with pytest.raises(Unavailable):
            await set_mode(house, "rwd")
        house.guard.error = None
        house.stages.error = DiskFailed("the disk is full")
        with pytest.raises(DiskFailed):
            await set_mode(house, "staged")
        assert kept(house) == {"src": "rw"}
        house.policies.profile = profile("ro", "rw")
        with pytest.raises(PolicyDenied):
            await set_mode(house, "rwd")
        with pytest.raises(NotFound):
            await set_mode(house, "ro", "other")
        await house.ensure()
        assert (house.launcher.mounts.of(), await states(house)) == ({"src": "rw"}, {"src": "mounted"})


@in_trio
async def test_the_mode_of_a_closed_session_is_kept_for_its_opening(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")])
        house.launcher.restart()
        assert (await set_mode(house, "rwd")).state == "closed"
        await house.sessions.open("bob")
        assert house.launcher.mounts.of() == {"src": "rwd"}


# -- with their session --------------------------------------------------------------------------------------------


@in_trio
async def test_ensure_changes_the_folders_of_running_commands(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a"), folder("b"), folder("c", mode="rw")])
        house.processes.running["bob"] = 1
        house.trace.clear()
        wanted = [folder("a"), folder("b", mode="rwd"), folder("c", mode="rwd"), folder("d")]
        done = await house.ensure(folders=wanted)
        assert [grant.name for grant in done.session.folders] == ["a", "b", "c", "d"]
        assert house.trace[0] == "unmount b"
        assert sorted(house.trace[1:]) == ["mount b rwd", "mount d ro", "rule c rwd"]
        await house.ensure(folders=[folder("d")])
        assert house.launcher.mounts.of() == {"d": "ro"}


@in_trio
async def test_a_change_of_folders_that_fails_gives_back_the_old_ones(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a"), folder("b", mode="rw")])
        house.processes.running["bob"] = 1
        before = house.stored()
        house.launcher.mounts.fails["c"] = GONE
        with pytest.raises(InvalidState, match="/srv/c is not there"):
            await house.ensure(folders=[folder("b", mode="rwd"), folder("c"), folder("d")])
        assert house.stored() == before
        assert house.launcher.mounts.of() == {"a": "ro", "b": "rw"}
        assert house.guard.rules["bob", "b"] == ("rw", False)
        assert await states(house) == {"a": "mounted", "b": "mounted"}


@in_trio
async def test_a_new_session_whose_required_folder_fails_is_not_made(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.launcher.mounts.fails["src"] = MountFailed("x", errno=errno.ETIMEDOUT, stage="probe")
        with pytest.raises(Unavailable, match="did not answer in time"):
            await house.ensure(folders=[folder("held", mode="staged"), folder("src"), folder("a")])
        assert (house.stored(), house.launcher.mounts.there, house.guard.watched) == ({}, {}, {})
        assert (house.stages.there, house.home().exists()) == ({}, False)


@in_trio
async def test_failed_folders_are_told_in_order_with_their_reasons(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.launcher.mounts.fails["b"] = MountFailed("x", errno=errno.ESTALE, stage="probe")
        house.launcher.mounts.fails["d"] = GONE
        grants = [folder(name, required=name in "ac") for name in "abcd"]
        done = await house.ensure(folders=grants)
        assert [failed.name for failed in done.failed_folders] == ["b", "d"]
        assert "stale" in done.failed_folders[0].error
        assert await states(house) == {"a": "mounted", "b": "failed", "c": "mounted", "d": "failed"}
        assert (await house.sessions.open("bob")).name == "bob"
        house.launcher.mounts.fails.clear()
        assert (await house.ensure()).failed_folders == ()


@in_trio
async def test_folders_come_back_with_another_launcher(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a"), folder("b", mode="rw")])
        house.launcher.restart()
        assert await states(house) == {"a": "closed", "b": "closed"}
        await house.sessions.open("bob")
        assert house.launcher.mounts.of() == {"a": "ro", "b": "rw"}
        assert set(house.guard.watched) == {("bob", "a"), ("bob", "b")}


@in_trio
async def test_a_required_folder_that_is_gone_at_the_next_opening_refuses_with_its_reason(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src"), folder("a")])
        house.launcher.restart()
        house.launcher.mounts.fails["src"] = GONE
        for _ in range(2):
            with pytest.raises(InvalidState, match="/srv/src is not there"):
                await house.sessions.open("bob")
        house.launcher.mounts.fails.clear()
        assert (await house.sessions.open("bob")).name == "bob"
        assert await states(house) == {"src": "mounted", "a": "mounted"}


@in_trio
async def test_a_required_folder_whose_server_has_died_is_mounted_before_the_next_command(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rw"), folder("b", mode="rw", required=False)])
        for name in ("src", "b", "unknown"):
            house.folders.failed("bob", name, "its file system has ended")
        assert await states(house) == {"src": "failed", "b": "failed"}
        asked = len(house.launcher.mounts.asked)
        await house.sessions.open("bob")
        assert len(house.launcher.mounts.asked) > asked
        assert await states(house) == {"src": "mounted", "b": "mounted"}


@in_trio
async def test_a_session_that_goes_takes_its_journals_and_stages_along(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a", mode="rw"), folder("b", mode="staged")])
        await house.sessions.delete(SessionDelete(session="bob"))
        assert (house.stages.there, house.launcher.mounts.there, house.guard.watched) == ({}, {}, {})
        assert list((tmp_path / "state" / "folders").iterdir()) == []


@in_trio
async def test_a_launcher_that_is_away_is_no_folders_fault(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.mounts.is_away = True
        with pytest.raises(Unavailable, match="launcher is away"):
            await mount(house, required=False)
        assert kept(house) == {}


# -- away ----------------------------------------------------------------------------------------------------------


@in_trio
async def test_a_command_waits_for_a_folder_that_is_away(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="staged")])
        seen: list[dict[str, str]] = []

        async def start() -> None:
            await house.sessions.open("bob")
            seen.append(house.launcher.mounts.of())

        async with trio.open_nursery() as nursery, house.folders.away("bob", "src"):
            nursery.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            assert seen == []
        assert seen == [{"src": "staged"}]


@in_trio
async def test_a_folder_is_away_while_its_stage_is_worked_on(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="staged")])
        async with house.folders.away("bob", "src") as held:
            assert (held.root, held.source, held.grant.mode) == (b"/", b"srv/src", "staged")
            assert (held.record.uid, house.launcher.mounts.of()) == (1001, {})
        assert house.launcher.mounts.of() == {"src": "staged"}
        with pytest.raises(RuntimeError):
            async with house.folders.away("bob", "src"):
                raise RuntimeError
        assert await states(house) == {"src": "mounted"}
        house.launcher.restart()
        async with house.folders.away("bob", "src"):
            assert house.launcher.mounts.of() == {}
        assert await states(house) == {"src": "closed"}
        with pytest.raises(NotFound):
            async with house.folders.away("bob", "none"):
                pytest.fail("there is none")


@in_trio
async def test_a_folder_in_use_is_not_taken_away_from_under_its_users(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="staged")])
        house.launcher.mounts.busy.add("src")
        before = list(house.trace)
        with pytest.raises(InvalidState, match=r"is in use \(2 commands use it\)"):
            async with house.folders.away("bob", "src"):
                pytest.fail("somebody uses it")
        assert (house.trace, await states(house)) == (before, {"src": "mounted"})
        assert ("bob", "src") in house.guard.watched


@in_trio
async def test_a_folder_is_found_mounted_or_not(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="staged")])
        house.launcher.restart()
        found = house.folders.find("bob", "src")
        assert (found.root, found.source, found.record.name) == (b"/", b"srv/src", "bob")
        with pytest.raises(NotFound):
            house.folders.find("bob", "none")


# -- mending -------------------------------------------------------------------------------------------------------


@in_trio
async def test_a_folder_whose_file_system_has_ended_is_mounted_again_but_not_for_ever(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, trio.open_nursery() as nursery:
        await nursery.start(house.folders.serve)
        await house.ensure(folders=[folder("src", mode="rw", required=False)])
        await nursery.start(pass_time)
        mounts = house.launcher.mounts

        async def fail_once() -> None:
            mounts.there.clear()
            house.folders.failed("bob", "src", "its file system has ended")
            assert await states(house) == {"src": "failed"}

        for turn in range(MENDS):
            await fail_once()
            while await states(house) != {"src": "mounted"}:
                await trio.lowlevel.checkpoint()
            assert len(mounts.asked) == turn + 2
        await fail_once()
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        assert len(mounts.asked) == MENDS + 1
        house.folders.failed("bob", "unknown", "it has ended")
        house.folders.failed("eve", "src", "it has ended")
        nursery.cancel_scope.cancel()


@in_trio
async def test_what_went_with_its_launcher_is_not_mended(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, trio.open_nursery() as nursery:
        await nursery.start(house.folders.serve)
        await house.ensure(folders=[folder("src", mode="rw")])
        house.folders.failed("bob", "src", "its file system has ended")
        house.launcher.restart()
        await nursery.start(pass_time)
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        assert len(house.launcher.mounts.asked) == 1
        nursery.cancel_scope.cancel()


@in_trio
async def test_what_a_staged_folder_holds_back_outlives_its_unmounting(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="staged")])
        assert "is kept" in (await unmount(house)).leftovers[0]
        assert house.stages.there == {("bob", "src"): (b"/", b"srv/src")}
