"""`process.set_limits`, and what a command takes, told by `process.get`: what is asked of one command's cgroup.

Rules
- A command never gets more than its session has, nor than policy allows; it may get more than it was started with.
- Recorded before it is done. It holds until the command ends; nothing of it is kept.
- What belongs to its processes (rlimits) and to its session (`tmp_max`, `disk_max`) cannot be changed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import structs

from coworkd.model.calls import ProcessName
from coworkd.model.calls_limits import LimitsSet, SetProcessLimits
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState
from coworkd.model.limits import CgroupLimits
from coworkd.model.policy import LimitsRequest
from coworkd.model.ports import AuditPort, GroupsPort, PolicyPort, SessionDirectory
from coworkd.model.process import ProcessInfo
from coworkd.policy import narrow_request
from coworkd.sandbox.limits import KERNEL_NAMES, session_limits, warn_below_use, warn_not_kept

LIVE = frozenset(KERNEL_NAMES)
"""What a running command can be given."""

Get = Callable[[ProcessName], Awaitable[ProcessInfo]]


class ProcessLimiting:
    """The limits of commands."""

    def __init__(
        self,
        *,
        get: Get,
        groups: GroupsPort,
        sessions: SessionDirectory,
        policies: PolicyPort,
        audit: AuditPort,
    ) -> None:
        """`get` is the process service's."""
        self._get = get
        self._groups = groups
        self._sessions = sessions
        self._policies = policies
        self._audit = audit

    async def set_limits(self, params: SetProcessLimits) -> LimitsSet:
        """Raises `NotFound`, `InvalidParams`, `InvalidState` for one that has ended, `PolicyDenied`, `DiskFailed`, `Unavailable`."""
        given = {name for name in LimitsRequest.__struct_fields__ if getattr(params.limits, name) is not None}
        if not given or not given <= LIVE:
            wrong = sorted(given - LIVE)
            said = f"{wrong[0]} cannot be changed while a command runs" if wrong else "limits is empty"
            raise InvalidParams(f"{said}; these can: {', '.join(sorted(LIVE))}", key="limits")
        info = await self._get(ProcessName(process=params.process))
        if info.state == "exited":
            raise InvalidState(f"process {info.process} has ended", process=info.process)
        session = await self._sessions.open(info.session)
        wanted, cut = narrow_request(session.limits, params.limits)
        policy = await self._policies.effective(session.profile, wanted)
        narrowed = (*policy.narrowed, *cut)
        composed = session_limits(policy.profile.limits)
        changes = CgroupLimits(**{name: getattr(composed, name) for name in _fields_of(given)})
        used = (await self._groups.measure(info.session, info.process)).usage
        await self._audit.record(
            "process.limits",
            {"session": info.session, "process": info.process, "limits": params.limits, "narrowed": narrowed},
        )
        state = await self._groups.set_limits(info.session, info.process, changes)
        return LimitsSet(
            limits=msgspec.to_builtins(state.limits),
            narrowed=narrowed,
            warnings=(
                *warn_below_use(used.memory_bytes, changes.memory_max_bytes),
                *warn_not_kept(params.limits, state.limits),
            ),
            usage=used,
        )


async def add_usage(groups: GroupsPort, info: ProcessInfo) -> ProcessInfo:
    """With what it takes, where it runs and the kernel counts it."""
    if info.state == "exited":
        return info
    try:
        state = await groups.measure(info.session, info.process)
    except CoworkError:  # it ends just now, or there is no cgroup v2: what else is known of it is told
        return info
    return structs.replace(info, usage=state.usage)


def _fields_of(given: set[str]) -> set[str]:
    """The kernel's limits that requested ones come to; memory.high always stands below memory.max."""
    fields = {KERNEL_NAMES[name] for name in given}
    return fields | {"memory_high_bytes"} if "memory_max_bytes" in fields else fields
