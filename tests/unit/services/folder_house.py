"""The verbs of folders on a session house, in few words, and what there is to be seen afterwards."""

from __future__ import annotations

import errno
from typing import Any

import trio
import trio.testing

from coworkd.model import calls
from coworkd.model.errors import (
    MountFailed,
)
from tests.unit.services.session_house import SessionHouse

GONE = MountFailed("No such file or directory", errno=errno.ENOENT, stage="source")


async def mount(house: SessionHouse, name: str = "src", mode: str = "ro", **fields: Any) -> calls.FolderInfo:
    known = {"session": "bob", "name": name, "source": f"/srv/{name}", "mode": mode}
    return (await house.folders.mount(calls.FolderMount(**{**known, **fields}))).folder


async def unmount(house: SessionHouse, name: str = "src") -> calls.FolderUnmounted:
    return await house.folders.unmount(calls.FolderUnmount(session="bob", name=name))


async def set_mode(house: SessionHouse, mode: Any, name: str = "src") -> calls.FolderInfo:
    return (await house.folders.set_mode(calls.FolderSetMode(session="bob", name=name, mode=mode))).folder


async def states(house: SessionHouse) -> dict[str, str]:
    listed = await house.folders.list(calls.FolderList(session="bob"))
    return {each.name: each.state for each in listed.folders}


def kept(house: SessionHouse) -> dict[str, str]:
    """What the record on disk says: name → mode."""
    return {grant.name: grant.mode for grant in house.stored()["bob"].folders}


def mounted(house: SessionHouse) -> dict[str, str]:
    """What there is to be seen: name → mode; of a guarded folder by the rule that its file system was told."""
    modes = house.launcher.mounts.of()
    for (session, name), (mode, _) in house.guard.rules.items():
        if session == "bob" and house.launcher.mounts.stand_as.get((session, name)) == "guarded" and name in modes:
            modes[name] = mode
    return modes


def told(house: SessionHouse) -> list[str]:
    return [event.name for event in house.events.published if event.name.startswith("folder.")]


async def pass_time(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Whoever sleeps is woken as soon as the threads of others let it."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    task_status.started()
    while True:
        await trio.lowlevel.checkpoint()
        clock.jump(0.01)
