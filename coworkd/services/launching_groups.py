"""The launcher, for those who limit, stop and measure what runs: implements `ports.GroupsPort` over the client's one connection."""

from __future__ import annotations

import os

from msgspec import structs

from coworkd.model import launch
from coworkd.model.errors import Unavailable
from coworkd.model.limits import CgroupLimits, PressureKind
from coworkd.model.ports import GroupState
from coworkd.services.launching_folders import AskForFds
from coworkd.services.launching_refusals import raise_group_refusal


class LauncherGroups:
    """Implements `ports.GroupsPort`."""

    def __init__(self, ask_for_fds: AskForFds) -> None:
        self._ask_for_fds = ask_for_fds

    async def set_limits(self, session: str, process: str | None, limits: CgroupLimits, /) -> GroupState:
        """See `ports.GroupsPort`."""
        request = launch.SetLimits(id=0, session=session, process=process, limits=limits)
        told, _ = await self._ask_for_fds(request, launch.Measured, (), raise_group_refusal)
        return GroupState(usage=told.usage, limits=told.limits)

    async def freeze(self, session: str, *, frozen: bool) -> bool:
        """See `ports.GroupsPort`."""
        request = launch.Freeze(id=0, session=session, frozen=frozen)
        told, _ = await self._ask_for_fds(request, launch.Frozen, (), raise_group_refusal)
        return told.frozen

    async def measure(self, session: str | None, process: str | None, /) -> GroupState:
        """See `ports.GroupsPort`."""
        request = launch.Measure(id=0, session=session, process=process)
        told, _ = await self._ask_for_fds(request, launch.Measured, (), raise_group_refusal)
        return GroupState(usage=told.usage, limits=told.limits)

    async def count_warm(self) -> dict[str, int]:
        """How it stands with the sandboxes that wait for commands, by the names of `launch.WarmCounts`. Raises `Unavailable`."""
        told, _ = await self._ask_for_fds(launch.CountWarm(id=0), launch.WarmCounts, (), raise_group_refusal)
        return {name: number for name, number in structs.asdict(told).items() if name != "id"}

    async def open_pressure(self, session: str, /) -> dict[PressureKind, int]:
        """See `ports.GroupsPort`."""
        request = launch.OpenPressure(id=0, session=session)
        told, fds = await self._ask_for_fds(request, launch.PressureOpened, (), raise_group_refusal)
        if len(fds) != len(told.kinds):
            for fd in fds:
                os.close(fd)
            raise Unavailable(f"the launcher sent {len(fds)} descriptors where {len(told.kinds)} belong")
        return dict(zip(told.kinds, fds, strict=True))
