"""`session.set_limits`: what a session may have changes under its running commands.

Rules
- Durable before it holds, and a change that fails changes nothing. It never exceeds profile and ceiling; what was asked in vain is told.
- What the kernel holds the whole session to changes at once. `nofile`, `fsize_max`, `cpu_time_s` and `core_max` belong to processes:
  the next commands have them. `tmp_max` is a mount that running commands stand on: it changes when the session is idle.
- A memory limit below what is used is taken: the kernel takes memory back, and kills what it cannot do without. The answer says so.
"""

from __future__ import annotations

import msgspec
import trio
from msgspec import structs

from coworkd.model.calls_limits import LimitsSet, SetSessionLimits
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState
from coworkd.model.policy import LimitsPolicy, LimitsRequest
from coworkd.model.ports import AuditPort, EventPort, GroupState, PolicyPort
from coworkd.model.session import SessionRecord
from coworkd.sandbox.limits import warn_below_use, warn_not_kept
from coworkd.services.session_home import Homes
from coworkd.services.session_opening import Openings
from coworkd.services.session_table import SessionTable, in_thread


class Limiting:
    """The limits of sessions."""

    def __init__(
        self,
        *,
        table: SessionTable,
        openings: Openings,
        homes: Homes,
        policies: PolicyPort,
        audit: AuditPort,
        events: EventPort,
    ) -> None:
        self._table = table
        self._openings = openings
        self._homes = homes
        self._policies = policies
        self._audit = audit
        self._events = events

    async def set_limits(self, params: SetSessionLimits) -> LimitsSet:
        """See `Sessions.set_limits`."""
        name = self._table.find(params.session).name
        async with self._table.in_turn(name):
            known = self._table.find_ready(name)
            wanted = structs.replace(known, limits=merge_limits(known.limits, params.limits))
            before = (await self._policies.effective(known.profile, known.limits)).profile.limits
            policy = await self._policies.effective(wanted.profile, wanted.limits)
            limits = policy.profile.limits
            rebuilt = limits.tmp_max_bytes != before.tmp_max_bytes
            if rebuilt and self._table.count(name):
                raise InvalidState(
                    f"commands of session {name} stand on its /tmp; end them, or leave tmp_max out", session=name
                )
            told = {"session": name, "limits": params.limits, "narrowed": policy.narrowed}
            # Shielded: a cancellation on the way would leave limits that are not those of the record.
            with trio.CancelScope(shield=True):
                await self._audit.record("session.limits", told)
                await self._table.keep(wanted)
                try:
                    state = await self._apply(wanted, limits, before, rebuilt=rebuilt)
                except CoworkError:
                    await self._table.keep(known)
                    raise
        self._events.publish("session.limits", {"session": name, "limits": msgspec.to_builtins(limits)})
        return tell_limits(params.limits, limits, policy.narrowed, state)

    async def _apply(
        self, record: SessionRecord, limits: LimitsPolicy, before: LimitsPolicy, *, rebuilt: bool
    ) -> GroupState | None:
        """What was used before, and what holds since; None where it is not open."""
        if rebuilt:
            await self._openings.close(record.name)  # with its next command it is opened as it is now
        if limits.disk_max_bytes != before.disk_max_bytes and self._homes.limits_disk:
            await in_thread(self._homes.limit, record.name, record.uid, limits.disk_max_bytes)
        used = await self._openings.measure(record.name)
        state = await self._openings.limit(record.name, limits)
        return None if state is None or used is None else GroupState(usage=used.usage, limits=state.limits)


def merge_limits(known: LimitsRequest, given: LimitsRequest) -> LimitsRequest:
    """What is given lies over what is known. Raises `InvalidParams` where nothing is."""
    changes = {name: getattr(given, name) for name in given.__struct_fields__ if getattr(given, name) is not None}
    if not changes:
        raise InvalidParams("limits is empty: name one, such as memory_max", key="limits")
    return structs.replace(known, **changes)


def tell_limits(
    asked: LimitsRequest, limits: LimitsPolicy, narrowed: tuple[str, ...], state: GroupState | None
) -> LimitsSet:
    """The answer. `state` is what was used before, and what holds since."""
    used = None if state is None else state.usage.memory_bytes
    lacking = () if state is None else warn_not_kept(asked, state.limits)
    return LimitsSet(
        limits=msgspec.to_builtins(limits),
        narrowed=narrowed,
        warnings=(*warn_below_use(used, limits.memory_max_bytes), *lacking),
        usage=None if state is None else state.usage,
    )
