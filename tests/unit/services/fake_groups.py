"""A fake of `ports.GroupsPort`: it remembers limits and who is frozen, and fails as `error` says."""

from __future__ import annotations

import os

import trio

from coworkd.model.errors import CoworkError
from coworkd.model.limits import CgroupLimits, GroupUsage, PressureKind
from coworkd.model.ports import GroupState


class FakeGroups:
    """`trace` is the order of effects; `usage` is what everything takes."""

    def __init__(self, trace: list[str] | None = None) -> None:
        self.trace = [] if trace is None else trace
        self.usage = GroupUsage(memory_bytes=100, pids=2)
        self.limits: dict[tuple[str, str | None], CgroupLimits] = {}
        self.kept: CgroupLimits | None = None
        """What the kernel keeps to of any limits; None: all."""
        self.frozen: dict[str, bool] = {}
        self.freezes_after = 0
        """How often is asked before all of them stand still."""
        self.error: CoworkError | None = None
        self.pipes: dict[str, dict[PressureKind, int]] = {}

    async def set_limits(self, session: str, process: str | None, limits: CgroupLimits, /) -> GroupState:
        await self._turn()
        self.trace.append(f"limit {session if process is None else process}")
        self.limits[session, process] = limits
        return GroupState(usage=self.usage, limits=limits if self.kept is None else self.kept)

    async def freeze(self, session: str, *, frozen: bool) -> bool:
        await self._turn()
        if self.frozen.get(session, False) != frozen:
            self.trace.append(f"{'freeze' if frozen else 'thaw'} {session}")
        self.frozen[session] = frozen
        if frozen and self.freezes_after > 0:
            self.freezes_after -= 1
            return False
        return frozen

    async def measure(self, session: str | None, process: str | None, /) -> GroupState:
        await self._turn()
        known = self.limits.get((session or "", process), CgroupLimits())
        return GroupState(usage=self.usage, limits=known)

    async def open_pressure(self, session: str, /) -> dict[PressureKind, int]:
        await self._turn()
        return {kind: os.dup(fd) for kind, fd in self.pipes.get(session, {}).items()}

    async def _turn(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
