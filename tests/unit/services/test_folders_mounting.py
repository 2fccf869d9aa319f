from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import structs

from coworkd.model.calls import FolderUnmounted
from coworkd.model.errors import (
    DiskFailed,
    InvalidState,
    MountFailed,
    NotFound,
    PolicyDenied,
    Unavailable,
)
from coworkd.model.ports import UnmountedFolder
from tests.unit.services.folder_house import GONE, kept, mount, mounted, pass_time, set_mode, states, unmount
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import SessionHouse, folder, open_house, profile


class Crash(BaseException):
    """coworkd is killed."""


CHANGES: dict[str, Any] = {
    "mount": lambda house: mount(house, "new", "rw"),
    "unmount": lambda house: unmount(house, "a"),
    "rule": lambda house: set_mode(house, "rwd", "b"),
    "remount": lambda house: set_mode(house, "rwd", "a"),
    "ensure": lambda house: house.ensure(folders=[folder("a", mode="rwd"), folder("b", mode="rwd"), folder("c")]),
    "replace": lambda house: house.ensure(folders=[folder("a", source="/srv/b"), folder("b", mode="rw")]),
}


def crash_at(house: SessionHouse, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From effect number `step` on, nothing this coworkd does has an effect: it is dead."""
    count = 0

    def dies(target: Any, name: str) -> None:
        done = getattr(target, name)

        def check() -> None:
            nonlocal count
            count += 1
            if count > step:
                raise Crash

        async def call(*args: Any, **words: Any) -> Any:
            check()
            return await done(*args, **words)

        def call_now(*args: Any) -> Any:
            check()
            return done(*args)

        monkeypatch.setattr(target, name, call_now if target is house.records else call)

    for target, name in (
        (house.audit, "record"),
        (house.records, "save"),
        (house.launcher.mounts, "mount_folder"),
        (house.launcher.mounts, "unmount_folder"),
        (house.guard, "watch"),
        (house.guard, "set_mode"),
    ):
        dies(target, name)


async def change_again(house: SessionHouse, change: str) -> None:
    try:
        await CHANGES[change](house)
    except NotFound:
        assert change == "unmount"


async def crash_and_converge(directory: Path, change: str, step: int, *, launcher_too: bool) -> tuple[bool, bool]:
    """Whether it came to a crash, and whether the record was the old one then."""
    async with open_house(directory) as house:
        await house.ensure(folders=[folder("a"), folder("b", mode="rw")])
        old, crashed = house.stored()["bob"].folders, False
        with pytest.MonkeyPatch.context() as patch:
            crash_at(house, step, patch)
            try:
                await CHANGES[change](house)
            except BaseException:
                crashed = True
        if launcher_too:
            house.launcher.restart()
        await house.restart()
        await house.sessions.open("bob")
        assert mounted(house) == kept(house)
        was_old = house.stored()["bob"].folders == old
        await change_again(house, change)
        now = kept(house)
        assert mounted(house) == now
        assert set(house.guard.watched) == {("bob", name) for name in now}
        assert all(house.guard.rules["bob", name] == (mode, False) for name, mode in now.items() if mode == "rw")
        return crashed, was_old


@pytest.mark.parametrize("launcher_too", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_between_any_two_steps_converges(tmp_path: Path, change: str, launcher_too: bool) -> None:
    """What is mounted is what the record says, old or new, and the same call again ends as if nothing had happened."""
    found: list[tuple[bool, bool]] = []
    while len(found) < 20 and (not found or found[-1][0]):

        @in_trio
        async def run() -> None:
            step = len(found)
            found.append(await crash_and_converge(tmp_path / f"{step}", change, step, launcher_too=launcher_too))

        run()
    assert {crashed for crashed, _ in found} == {True, False}
    assert {was_old for _, was_old in found} == {True, False}


@in_trio
async def test_what_an_earlier_coworkd_mounted_otherwise_goes_first(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")])
        [held] = house.launcher.mounts.there.values()
        house.launcher.mounts.there["bob", "src"] = type(held)(
            id=0, session="bob", name="src", root=b"/", source=b"srv/else", mode="rwd"
        )
        await house.restart()
        await house.sessions.open("bob")
        assert house.launcher.mounts.of() == {"src": "ro"}


@in_trio
async def test_what_an_earlier_coworkd_had_begun_comes_to_its_end(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        mounts, times = house.launcher.mounts, iter(range(3))
        done = mounts.mount_folder

        async def busy(request: Any, /) -> Any:
            if next(times, None) is not None:
                raise MountFailed("it is being mounted; ask again", errno=errno.EBUSY, stage="folder")
            return await done(request)

        mounts.mount_folder = busy  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            await nursery.start(pass_time)
            assert (await mount(house)).state == "mounted"
            nursery.cancel_scope.cancel()


@in_trio
async def test_one_that_never_comes_to_its_end_fails_alone(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.launcher.mounts.fails["src"] = MountFailed("ask again", errno=errno.EBUSY, stage="folder")
        async with trio.open_nursery() as nursery:
            await nursery.start(pass_time)
            done = await house.ensure(folders=[folder("src", required=False), folder("a")])
            nursery.cancel_scope.cancel()
        assert [failed.name for failed in done.failed_folders] == ["src"]
        assert house.launcher.mounts.of() == {"a": "ro"}


@in_trio
async def test_a_file_system_that_takes_no_rule_is_not_left_mounted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.guard.error = Unavailable("it does not answer")
        with pytest.raises(Unavailable, match="cannot be read"):
            await mount(house, mode="rw")
        assert (house.launcher.mounts.of(), house.guard.watched) == ({}, {})


@in_trio
async def test_what_another_launcher_had_is_let_go_of(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a", mode="rw"), folder("b")])
        house.launcher.restart()
        house.launcher.mounts.fails["a"] = GONE
        with pytest.raises(InvalidState):
            await house.sessions.open("bob")
        assert set(house.guard.watched) == {("bob", "b")}


@in_trio
async def test_a_folder_in_use_is_not_set_aside(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="staged")])
        house.launcher.mounts.busy.add("src")
        with pytest.raises(InvalidState, match="in use"):
            async with house.folders.away("bob", "src"):
                pytest.fail("it is in use")
        assert house.launcher.mounts.of() == {"src": "staged"}
        assert house.trace.count("mount src staged") == 1


@in_trio
async def test_a_launcher_that_goes_while_it_unmounts_has_unmounted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src")])

        async def go(session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
            house.launcher.restart()
            raise Unavailable("the launcher went away during the call")

        house.launcher.mounts.unmount_folder = go  # type: ignore[method-assign]
        assert await unmount(house) == FolderUnmounted(busy=False)
        assert kept(house) == {}


@in_trio
async def test_what_is_as_asked_is_not_asked_for_again(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a", mode="rw"), folder("b"), folder("c", mode="staged")])
        asked, traced = len(house.launcher.mounts.asked), list(house.trace)
        await house.ensure()
        assert (len(house.launcher.mounts.asked), house.trace) == (asked, traced)


@in_trio
async def test_a_stage_that_its_source_does_not_let_be_is_the_callers_fault(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        for number, kind, said in (
            (errno.ENOTDIR, InvalidState, "only a directory can be staged"),
            (errno.ENOENT, InvalidState, "is not there"),
            (errno.ENOSPC, DiskFailed, "no room"),
        ):
            house.stages.error = DiskFailed("there is no room", errno=number)
            with pytest.raises(kind, match=said):
                await mount(house, mode="staged")
        assert kept(house) == {}


@in_trio
async def test_a_disk_without_room_for_journals_stops_no_other_folder(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        (tmp_path / "state" / "folders").write_text("in the way")
        done = await house.ensure(folders=[folder("a"), folder("b", mode="rw", required=False)])
        assert done.failed_folders == ()
        assert "a" in house.launcher.mounts.of()
        (tmp_path / "state" / "folders").unlink()


# -- what is configured by now, or the record, does not have any more ---------------------------------------------


@in_trio
async def test_policies_that_changed_reach_the_folders_of_open_sessions(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a", mode="rw"), folder("b", mode="rwd"), folder("c")])
        house.processes.running["bob"] = 1
        house.policies.profile = profile("ro", "rw", ask_delete=True)
        await house.sessions.refresh()
        assert house.guard.rules["bob", "a"] == ("rw", True)
        assert house.launcher.mounts.of() == {"a": "rw", "c": "ro"}
        assert await states(house) == {"a": "mounted", "b": "failed", "c": "mounted"}
        assert house.audit.fields("folder.unmount")["name"] == "b"
        assert "forbids" in house.audit.fields("folder.unmount")["reason"]
        with pytest.raises(PolicyDenied, match="mode rwd is not allowed"):
            await house.sessions.open("bob")


@in_trio
async def test_a_session_without_policies_has_no_folders_until_it_has_some(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a", mode="rwd"), folder("b")])
        house.processes.running["bob"] = 1
        house.policies.error, house.audit.full = NotFound("there is no profile 'default'"), {"folder.unmount"}
        await house.sessions.refresh()
        assert house.launcher.mounts.of() == {}
        house.policies.error = None
        house.audit.full = set()
        await house.sessions.refresh()
        assert house.launcher.mounts.of() == {"a": "rwd", "b": "ro"}


@in_trio
async def test_what_an_earlier_coworkd_has_left_mounted_is_found_and_goes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rwd"), folder("b"), folder("c", mode="staged", required=False)])
        house.launcher.connections += 1  # as a coworkd that has just started finds it
        assert await states(house) == {"src": "closed", "b": "closed", "c": "closed"}
        await unmount(house)
        assert house.launcher.mounts.of() == {"b": "ro", "c": "staged"}
        async with house.folders.away("bob", "c"):
            assert house.launcher.mounts.of() == {"b": "ro"}
        await house.launcher.mounts.mount_folder(structs.replace(house.launcher.mounts.asked[-1], name="unknown"))
        await house.sessions.open("bob")
        assert house.launcher.mounts.of() == {"b": "ro", "c": "staged"}


@in_trio
async def test_a_source_that_cannot_be_meant_any_more_stops_no_session_that_does_not_require_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rwd", required=False), folder("b", required=False)])
        house.launcher.connections += 1
        rules, records = house.folders._rules, house.sessions._table.records
        rules._own = ("/srv/b",)  # as another configuration has it
        await house.sessions.open("bob")
        assert await states(house) == {"src": "mounted", "b": "failed"}
        assert house.launcher.mounts.of() == {"src": "rwd"}
        house.launcher.connections += 1
        rules._share_root, rules._own = "/share", ()
        records["bob"] = structs.replace(
            records["bob"], folders=(folder("src", source="../x", mode="rw", required=False),)
        )
        await house.sessions.open("bob")
        assert await states(house) == {"src": "failed"}
        assert house.launcher.mounts.of() == {}


@in_trio
async def test_what_policies_forbid_by_now_goes_from_what_an_earlier_coworkd_has_left(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("src", mode="rwd", required=False)])
        house.launcher.connections += 1
        house.policies.profile = profile("ro")
        await house.sessions.open("bob")
        assert house.launcher.mounts.of() == {}
        assert await states(house) == {"src": "failed"}
        assert "forbids" in house.audit.fields("folder.unmount")["reason"]


@in_trio
async def test_what_was_mounted_in_a_launcher_that_has_gone_meanwhile_does_not_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        watch = house.guard.watch

        async def lose_launcher(*args: Any) -> None:
            monkeypatch.setattr(house.guard, "watch", watch)
            await watch(*args)
            house.launcher.restart()

        monkeypatch.setattr(house.guard, "watch", lose_launcher)
        with pytest.raises(Unavailable, match="went away"):
            await mount(house, mode="rwd")
        assert house.guard.watched == {}
        await mount(house, mode="rwd")
        assert (await states(house), house.launcher.mounts.of()) == ({"src": "mounted"}, {"src": "rwd"})


@in_trio
async def test_a_session_that_cannot_be_taken_over_has_no_folders(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(folders=[folder("a", mode="rwd"), folder("b")])
        house.processes.running["bob"] = 1
        house.launcher.connections += 1
        house.policies.error = NotFound("there is no profile 'default'")
        house.launcher.mounts.is_away = True
        await house.sessions.reopen()
        assert house.launcher.mounts.of() == {"a": "rwd", "b": "ro"}
        house.launcher.mounts.is_away = False
        await house.sessions.reopen()
        assert house.launcher.mounts.of() == {}
        house.policies.error = None
        await house.sessions.open("bob")
        assert house.launcher.mounts.of() == {"a": "rwd", "b": "ro"}
