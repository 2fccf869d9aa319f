from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.calls import FolderUnmounted
from coworkd.model.errors import (
    DiskFailed,
    InvalidState,
    MountFailed,
    NotFound,
    Unavailable,
)
from coworkd.model.ports import UnmountedFolder
from tests.unit.services.folder_house import GONE, kept, mount, mounted, pass_time, set_mode, unmount
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import SessionHouse, folder, open_house


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
