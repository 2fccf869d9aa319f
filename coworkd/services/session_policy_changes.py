"""What holds for sessions changes: by `session.set_policy`, and where the policies on disk have changed.

Rules
- Profile and limits change when the session is idle; what it may reach changes at any time, for the next connection.
- A change that fails changes nothing. Where new policies cannot be had for a session, it reaches nothing, and its folders go.
- A folder whose mode the new policies forbid is taken away.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.egress import SessionEgress
from coworkd.model.errors import CoworkError, InvalidState
from coworkd.model.policy import EffectivePolicy
from coworkd.model.ports import AuditPort, EgressPort, EventPort, FoldersPort, SessionPolicyPort
from coworkd.model.session import SessionRecord
from coworkd.services.session_opening import Openings
from coworkd.services.session_policy import describe_policy
from coworkd.services.session_table import SessionTable

_NO_POLICY = "its session has no policies that hold"
_log = logging.getLogger("coworkd.session")


class PolicyChanges:
    """The policy of sessions."""

    def __init__(
        self,
        *,
        table: SessionTable,
        openings: Openings,
        folders: FoldersPort,
        policies: SessionPolicyPort,
        egress: EgressPort,
        audit: AuditPort,
        events: EventPort,
    ) -> None:
        self._table = table
        self._openings = openings
        self._folders = folders
        self._policies = policies
        self._egress = egress
        self._audit = audit
        self._events = events

    async def set_policy(self, params: calls.SetPolicy) -> calls.PolicySet:
        """See `Sessions.set_policy`."""
        name = self._table.find(params.session).name
        async with self._table.in_turn(name):
            known = self._table.find_ready(name)
            wanted = _with_policy(known, params)
            policy = await self._policies.effective(wanted.profile, wanted.limits)
            egress, narrowed = self._policies.compose_egress(policy, wanted.egress)
            await self._folders.judge(wanted.folders, policy)
            rebuilt = (known.profile, known.limits) != (wanted.profile, wanted.limits)
            if rebuilt and self._table.count(name):
                raise InvalidState(
                    f"commands of session {name} run on its profile and limits; end them, change egress alone, or use"
                    " session.set_limits",
                    session=name,
                )
            # Shielded: a cancellation on the way would leave a session that reaches more than its record says.
            with trio.CancelScope(shield=True):
                await self._audit.record("policy.set", _policy_record(wanted, policy, narrowed))
                if rebuilt:
                    await self._openings.close(name)
                await self._table.keep(wanted)
                closed = await self._change_way_out(known, egress, close_forbidden=params.close_forbidden)
        shown = describe_policy(policy, egress, self._egress.allowances(name), narrowed)
        self._events.publish("session.policy", {"session": name, "profile": wanted.profile, "closed": closed})
        return calls.PolicySet(effective=msgspec.to_builtins(shown), narrowed=shown.narrowed, closed=closed)

    async def _change_way_out(self, known: SessionRecord, egress: SessionEgress, *, close_forbidden: bool) -> int:
        if not self._openings.is_open(known.name):
            return 0
        try:
            return await self._openings.change(known.name, egress, close_forbidden=close_forbidden)
        except CoworkError:
            await self._table.keep(known)
            raise

    async def policy(self, params: calls.SessionName) -> calls.SessionPolicy:
        """What holds for a session now. Raises `NotFound`."""
        record = self._table.find(params.session)
        policy = await self._policies.effective(record.profile, record.limits)
        egress, narrowed = self._policies.compose_egress(policy, record.egress)
        return describe_policy(policy, egress, self._egress.allowances(record.name), narrowed)

    async def refresh(self) -> None:
        """The policies on disk have changed: let every open session be as they say now."""
        # One that is being opened may have been judged by the old ones.
        for name in {*self._openings.names, *self._table.busy}:
            async with self._table.in_turn(name):
                record = self._table.records.get(name)
                if record is not None and self._openings.is_open(name):
                    await self._refresh(record)

    async def _refresh(self, record: SessionRecord) -> None:
        policy: EffectivePolicy | None = None
        try:
            policy = await self._policies.effective(record.profile, record.limits)
            egress, _ = self._policies.compose_egress(policy, record.egress)
        except CoworkError as error:
            _log.error("session %s reaches nothing from here on: %s", record.name, error.message)
            egress = SessionEgress(settings=())
        try:
            await self._openings.change(record.name, egress, close_forbidden=True)
        except CoworkError as error:
            _log.error("session %s reaches nothing until it is opened again: %s", record.name, error.message)
            await self._egress.stop(record.name)
        try:
            if policy is not None:
                await self._openings.limit(record.name, policy.profile.limits)
        except CoworkError as error:
            _log.error("session %s keeps the limits it had: %s", record.name, error.message)
        try:
            if policy is None:
                await self._folders.withdraw(record, _NO_POLICY)
            else:
                await self._folders.mount_all(record, policy)
        except CoworkError as error:
            _log.error("session %s lacks a folder from here on: %s", record.name, error.message)


def _with_policy(record: SessionRecord, params: calls.SetPolicy) -> SessionRecord:
    given = {"profile": params.profile, "limits": params.limits, "egress": params.egress}
    wanted = structs.replace(record, **{name: value for name, value in given.items() if value is not None})
    return wanted if wanted.egress else structs.replace(wanted, egress=None)


def _policy_record(record: SessionRecord, policy: EffectivePolicy, narrowed: tuple[str, ...]) -> dict[str, object]:
    network: Any = (record.egress or {}).get("network", {})
    return {
        "session": record.name,
        "profile": policy.profile.name,
        "limits": record.limits,
        "narrowed": narrowed,
        "allowed": network.get("allowedDomains"),
        "denied": network.get("deniedDomains"),
    }
