"""Sessions: made, found again, opened in the launcher, deleted. Every verb converges: run it twice, or after a crash half-way.

Rules
- The record on disk is the session; what the launcher holds is made from it whenever it is needed (`open`).
- What a running command stands on is not changed under it: profile and limits change when the session is idle. Folders come and go,
  and what it may reach changes at any time, for the next connection.
- An ephemeral session goes, with all it holds, when the link that made it goes, or coworkd itself.
- One verb at a time works on a session; different sessions do not wait for each other.

How each verb goes is said in `session_ensuring`, `session_deleting` and `session_policy_changes`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from coworkd.model import calls
from coworkd.model.calls_limits import LimitsSet, PauseSession, SessionPaused, SetSessionLimits
from coworkd.model.errors import CoworkError
from coworkd.model.layout import GuestLayout
from coworkd.model.names import parse_session_name
from coworkd.model.policy import EffectivePolicy
from coworkd.model.ports import (
    AuditPort,
    EgressPort,
    EventPort,
    FoldersPort,
    GroupsPort,
    LauncherPort,
    LinkPort,
    PolicyPort,
    ProcessDirectory,
    SessionPolicyPort,
    StorageGuard,
    ToolsPort,
    TrustPort,
)
from coworkd.model.session import RemovedSession, SessionRecord, SessionView
from coworkd.services.session_deleting import Deleting
from coworkd.services.session_ensuring import Ensuring
from coworkd.services.session_home import Homes
from coworkd.services.session_limits import Limiting
from coworkd.services.session_measuring import Place
from coworkd.services.session_opening import OnTurn, Openings
from coworkd.services.session_pausing import Pausing
from coworkd.services.session_policy_changes import PolicyChanges
from coworkd.services.session_records import RecordStore
from coworkd.services.session_recovering import Recovering, Reowner
from coworkd.services.session_table import SessionTable, in_thread
from coworkd.services.session_uses import Uses

_TAKEN_AT_ONCE = 8
"""Sessions that are taken over at the same time: one whose share hangs does not hold up the others, and the launcher is not flooded."""
_log = logging.getLogger("coworkd.session")


class CommandGate(Protocol):
    """Who may refuse a session another command."""

    async def refuse_command(self, session: str, /) -> None:
        """Raises `LimitExceeded` with what to do."""


class Sessions:
    """All sessions of this guest; implements `ports.SessionDirectory` and `ports.SessionFolders`. `load` before anything else, `serve`
    to own its tasks.
    """

    def __init__(
        self,
        *,
        records: RecordStore,
        homes: Homes,
        layout: GuestLayout,
        launcher: LauncherPort,
        groups: GroupsPort,
        reowner: Reowner,
        folders: FoldersPort,
        policies: SessionPolicyPort,
        egress: EgressPort,
        trust: TrustPort,
        tools: ToolsPort | None = None,
        audit: AuditPort,
        events: EventPort,
        storage: StorageGuard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._homes = homes
        self._clock = clock
        self._gate: CommandGate | None = None
        self._folders = folders
        self._policies, self._events, self._storage = policies, events, storage
        self.table = self._table = table = SessionTable(records)
        self.uses = Uses(table, clock)
        self._openings = openings = Openings(
            launcher=launcher,
            groups=groups,
            folders=folders,
            egress=egress,
            policies=policies,
            trust=trust,
            tools=tools,
            home_path=homes.path,
            layout=layout,
        )
        self._recovering = Recovering(
            table=table, openings=openings, reowner=reowner, places=homes.places, audit=audit, events=events
        )
        self._ensuring = Ensuring(
            table=table,
            homes=homes,
            openings=openings,
            recovering=self._recovering,
            folders=folders,
            policies=policies,
            audit=audit,
            clock=clock,
        )
        self._deleting = Deleting(
            table=table, homes=homes, openings=openings, folders=folders, audit=audit, events=events, storage=storage
        )
        self._policy_changes = self._make_policy_changes(egress, audit)
        self._limiting = self._make_limiting(audit)
        self._pausing = Pausing(table=table, openings=openings, audit=audit, events=events)

    def _make_policy_changes(self, egress: EgressPort, audit: AuditPort) -> PolicyChanges:
        return PolicyChanges(
            table=self.table,
            openings=self._openings,
            folders=self._folders,
            policies=self._policies,
            egress=egress,
            audit=audit,
            events=self._events,
        )

    def _make_limiting(self, audit: AuditPort) -> Limiting:
        return Limiting(
            table=self.table,
            openings=self._openings,
            homes=self._homes,
            policies=self._policies,
            audit=audit,
            events=self._events,
        )

    def attach(self, processes: ProcessDirectory, *, on_turn: OnTurn | None = None) -> None:
        """Say who knows the processes, and who is told when a session has opened or closed; before `serve`."""
        self._table.processes = processes
        if on_turn is not None:
            self._openings.on_turn = on_turn

    def guard(self, gate: CommandGate) -> None:
        """Say who may refuse commands; before `serve`."""
        self._gate = gate

    def places(self, name: str) -> tuple[Place, ...]:
        """What a session has on the disk, its home first."""
        return self._homes.places(name)

    async def load(self) -> None:
        """Find out which sessions there are. Raises `DiskFailed`."""
        await self._table.load(self._homes, self._clock())
        if self._table.records:
            _log.info("recovered %d sessions, %d not as they were left", self.count, len(self._table.findings))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own background work; finish what a crash interrupted, and put right what was found. Never returns."""
        self._recovering.settle()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._deleting.serve)
            nursery.start_soon(self._recovering.serve)
            nursery.start_soon(self.uses.serve)
            task_status.started()

    @property
    def count(self) -> int:
        return len(self._table.records)

    # -- verbs --------------------------------------------------------------------------------------------------

    async def ensure(self, params: calls.SessionEnsure, link: LinkPort) -> calls.SessionEnsured:
        """Make the session as asked, or find it so. Raises `AlreadyExists` (`resume: new`), `NotFound` (`existing`), `InvalidState`
        where commands run on what is to change, `Unavailable` where the disk cannot be used, and what judging and mounting raise.
        """
        self._storage.refuse_if_unusable()
        name = parse_session_name(params.name)
        async with self._table.in_turn(name):
            done = await self._ensuring.ensure(params)
            if params.ephemeral and done.created:
                self._deleting.ephemeral.add(name)
                link.on_close(partial(self._deleting.drop, name))
        record = done.record
        if done.created:
            self._events.publish("session.created", {"session": name, "uid": record.uid, "profile": record.profile})
        return calls.SessionEnsured(
            session=self._table.info(record),
            created=done.created,
            failed_folders=done.failed,
            narrowed=done.narrowed,
        )

    async def get(self, params: calls.SessionName) -> calls.SessionAnswer:
        """Raises `NotFound`."""
        return calls.SessionAnswer(session=self._table.info(self._table.find(params.session)))

    async def list(self) -> calls.SessionList:
        """By name."""
        records = self._table.records
        return calls.SessionList(sessions=tuple(self._table.info(records[name]) for name in sorted(records)))

    async def delete(self, params: calls.SessionDelete) -> RemovedSession:
        """Remove the session and all it holds. Raises `NotFound`, `InvalidState` if commands run and `force` is not given."""
        name = self._table.find(params.session).name
        async with self._table.in_turn(name):
            return await self._deleting.delete(name, force=params.force, reason="asked for")

    async def delete_idle(self, name: str, reason: str, idle_since: float = math.inf) -> bool:
        """Remove it unless something runs in it, it was used after `idle_since` or is gone; whether it is gone. Raises `DiskFailed`."""
        async with self._table.in_turn(name):
            record = self._table.records.get(name)
            if record is not None:
                if self._table.count(name) or self.uses.idle_since(record) > idle_since:
                    return False
                await self._deleting.delete(name, force=False, reason=reason)
            return True

    async def open(self, name: str, /) -> SessionView:
        """See `ports.SessionDirectory`."""
        record = self._table.find_ready(name)
        self._storage.refuse_if_unusable()
        if not self._openings.is_open(name) or self._folders.lacks(name):
            async with self._table.in_turn(name):
                record = await self._opened(name)
        return self._openings.view(record)

    async def open_for_command(self, name: str, /) -> SessionView:
        """See `ports.SessionDirectory`."""
        view = await self.open(name)
        if self._gate is not None:
            await self._gate.refuse_command(name)
        self._pausing.refuse_if_paused(name)
        self.uses.touch(name)
        return view

    async def set_policy(self, params: calls.SetPolicy) -> calls.PolicySet:
        """Another profile, other limits, another way out. Raises `NotFound`, `InvalidState` where commands run on profile or limits,
        and what is wrong with the settings; a change that fails changes nothing.
        """
        return await self._policy_changes.set_policy(params)

    async def set_limits(self, params: SetSessionLimits) -> LimitsSet:
        """Other limits, also for the commands that run. Raises `NotFound`, `InvalidParams`, `InvalidState` where what they stand on would
        change, `Unavailable`; a change that fails changes nothing.
        """
        return await self._limiting.set_limits(params)

    async def pause(self, params: PauseSession) -> SessionPaused:
        """Let its commands stand still, and none begin. Raises `NotFound`, `InvalidState`, `DiskFailed`, `Unavailable`."""
        return await self._pausing.pause(params)

    async def resume(self, params: PauseSession) -> SessionPaused:
        """Let them go on. Raises as `pause`."""
        return await self._pausing.resume(params)

    async def policy(self, params: calls.SessionName) -> calls.SessionPolicy:
        """What holds for a session now. Raises `NotFound`."""
        return await self._policy_changes.policy(params)

    async def refresh(self) -> None:
        """The policies on disk have changed: let every open session be as they say now."""
        await self._policy_changes.refresh()

    async def reopen(self) -> tuple[str, ...]:
        """Take over the sessions in which commands run since before this coworkd; returns those that cannot be."""
        lost: set[str] = set()
        taking = trio.CapacityLimiter(_TAKEN_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for name in [name for name in self._table.records if self._table.count(name)]:
                nursery.start_soon(self._take_over, name, lost, taking)
        return tuple(sorted(lost))

    async def _take_over(self, name: str, lost: set[str], taking: trio.CapacityLimiter) -> None:
        async with taking:
            try:
                await self.open(name)
                await self._settle_limits(name)
            except CoworkError as error:
                record = self._table.records.get(name)
                if record is None:
                    return  # an ephemeral one whose link has not come back: it was deleted meanwhile
                if record.state != "deleting":  # that is gone on with, and ends what runs in it
                    _log.error("session %s cannot be taken over: %s", name, error.message)
                    lost.add(name)
                if not self._openings.is_open(name):
                    await self._withdraw_folders(record)

    async def _settle_limits(self, name: str) -> None:
        try:
            await self._openings.settle_limits(name)
        except CoworkError as error:  # no cgroup v2, or the kernel refuses: its commands run on
            _log.debug("the limits of session %s are not looked at: %s", name, error.message)

    async def _withdraw_folders(self, record: SessionRecord) -> None:
        """Nobody knows any more what its commands may have."""
        try:
            await self._folders.withdraw(record, "its session cannot be taken over")
        except CoworkError as error:
            _log.error("the folders of session %s stay with its commands: %s", record.name, error.message)

    async def end_ephemeral(self) -> None:
        """Delete every ephemeral session: coworkd is stopping."""
        for name in sorted(self._deleting.ephemeral):
            await self._deleting.delete_quietly(name, "coworkd stops")

    # -- for its folders: ports.SessionFolders ------------------------------------------------------------------

    @asynccontextmanager
    async def turn(self, session: str, *, opened: bool) -> AsyncIterator[Turn]:
        """See `ports.SessionFolders`."""
        name = self._table.find(session).name
        async with self._table.in_turn(name):
            record = await self._opened(name) if opened else self._table.find_ready(name)
            yield Turn(self._table, self._policies, record, is_open=self._openings.is_open(name))

    def record(self, session: str, /) -> SessionRecord:
        """See `ports.SessionFolders`."""
        return self._table.find(session)

    def is_open(self, session: str, /) -> bool:
        """See `ports.SessionFolders`."""
        return self._openings.is_open(session)

    def commands(self, session: str, /) -> int:
        """See `ports.SessionFolders`."""
        return self._table.count(session)

    async def _opened(self, name: str) -> SessionRecord:
        """In its turn: a ready session, open, with its folders."""
        record = self._table.find_ready(name)
        policy = await self._policies.effective(record.profile, record.limits)
        if not self._openings.is_open(name):
            if self._homes.limits_disk:
                await in_thread(self._homes.limit, name, record.uid, policy.profile.limits.disk_max_bytes)
            await self._openings.open(record, policy)
        elif self._folders.lacks(name):
            await self._folders.mount_all(record, policy)
        return record


class Turn:
    """Implements `ports.FolderTurn`."""

    def __init__(self, table: SessionTable, policies: PolicyPort, record: SessionRecord, *, is_open: bool) -> None:
        self._table = table
        self._policies = policies
        self.record = record
        self.is_open = is_open

    async def effective(self) -> EffectivePolicy:
        """See `ports.FolderTurn`."""
        return await self._policies.effective(self.record.profile, self.record.limits)

    async def keep(self, record: SessionRecord, /) -> None:
        """See `ports.FolderTurn`."""
        with trio.CancelScope(shield=True):
            await self._table.keep(record)
            self.record = record
