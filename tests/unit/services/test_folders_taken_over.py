"""Folders that what is configured by now, or the record, does not have any more: of an earlier coworkd, and of other policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd.model.errors import NotFound, PolicyDenied, Unavailable
from tests.unit.services.folder_house import mount, states, unmount
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import folder, open_house, profile


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
