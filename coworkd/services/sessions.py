"""Sessions: made, found again, opened in the launcher, deleted. Every verb converges: run it twice, or after a crash half-way.

Order of `ensure`: judge (names, policy, folders) → audit → record `incomplete` → home and account → open in the launcher → record
`ready`. A step that fails leaves a record that says how far it came; a session that never was is taken back whole.

Rules
- The record on disk is the session; what the launcher holds is made from it whenever it is needed (`open`).
- What a running command stands on is not changed under it: folders, profile and limits change when the session is idle. What it may
  reach changes at any time, for the next connection.
- An ephemeral session goes, with all it holds, when the link that made it goes, or coworkd itself.
- One verb at a time works on a session; different sessions do not wait for each other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.egress import SessionEgress
from coworkd.model.errors import AlreadyExists, CoworkError, InvalidState, LimitExceeded, NotFound
from coworkd.model.layout import GuestLayout
from coworkd.model.names import parse_session_name
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.model.ports import (
    AuditPort,
    EgressPort,
    EventPort,
    LauncherPort,
    LinkPort,
    ProcessDirectory,
    SessionPolicyPort,
    TrustPort,
)
from coworkd.model.session import (
    RECORD_FORMAT,
    FailedFolder,
    FolderGrant,
    RemovedSession,
    SessionInfo,
    SessionRecord,
    SessionView,
)
from coworkd.sandbox.tree import folder_path, sandbox_home
from coworkd.services.session_folders import judge_folders, refuse_sockets
from coworkd.services.session_home import Homes
from coworkd.services.session_opening import OnTurn, Openings
from coworkd.services.session_policy import describe_policy
from coworkd.services.session_records import RecordStore

SESSION_LIMIT = 10_000
_log = logging.getLogger("coworkd.session")
_T = TypeVar("_T")


class Sessions:
    """All sessions of this guest; implements `ports.SessionDirectory`. `load` before anything else, `serve` to own its tasks."""

    def __init__(
        self,
        *,
        records: RecordStore,
        homes: Homes,
        own_directories: tuple[str, ...],
        layout: GuestLayout,
        launcher: LauncherPort,
        policies: SessionPolicyPort,
        egress: EgressPort,
        trust: TrustPort,
        audit: AuditPort,
        events: EventPort,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = records
        self._homes = homes
        self._own_directories = own_directories
        self._policies = policies
        self._openings = Openings(
            launcher=launcher, egress=egress, policies=policies, trust=trust, home_path=homes.path, layout=layout
        )
        self._egress = egress
        self._audit = audit
        self._events = events
        self._clock = clock
        self._records: dict[str, SessionRecord] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._ephemeral: set[str] = set()
        self._claiming = trio.Lock()
        self._processes: ProcessDirectory | None = None
        self._nursery: trio.Nursery | None = None

    def attach(self, processes: ProcessDirectory, *, on_turn: OnTurn | None = None) -> None:
        """Say who knows the processes, and who is told when a session has opened or closed; before `serve`."""
        self._processes = processes
        if on_turn is not None:
            self._openings.on_turn = on_turn

    async def load(self) -> None:
        """Read every record. Raises `DiskFailed`."""
        await _in_thread(self._homes.prepare)
        self._records = await _in_thread(self._store.load)
        for record in self._records.values():
            _log.info("recovered %s uid=%d gid=%d state=%s", record.name, record.uid, record.gid, record.state)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own background deletions; finish those a crash interrupted. Never returns."""
        async with trio.open_nursery() as self._nursery:
            for record in list(self._records.values()):
                if record.state == "deleting":
                    self._nursery.start_soon(self._delete_quietly, record.name, "begun before a restart")
                elif record.ephemeral:
                    self._nursery.start_soon(self._delete_quietly, record.name, "its link went with a restart")
            task_status.started()
            await trio.sleep_forever()

    @property
    def count(self) -> int:
        return len(self._records)

    # -- verbs --------------------------------------------------------------------------------------------------

    async def ensure(self, params: calls.SessionEnsure, link: LinkPort) -> calls.SessionEnsured:
        """Make the session as asked, or find it so. Raises `AlreadyExists` (`resume: new`), `NotFound` (`existing`), `InvalidState`
        where commands run on what is to change, and what judging and mounting raise.
        """
        name = parse_session_name(params.name)
        async with self._in_turn(name):
            known = self._records.get(name)
            self._judge_resume(params, known)
            policy = await self._judge(params, known)
            home_found = await _in_thread(self._homes.exists, name)
            wanted, created = await self._claim(name, params, known, policy)
            try:
                failed, told = await self._realise(
                    wanted, policy, changed=known is not None and _differs(known, wanted)
                )
            except BaseException:
                with trio.CancelScope(shield=True):
                    if known is not None:
                        await self._restore(known)
                    else:
                        await self._take_back(wanted, keep_home=home_found)
                raise
            if params.ephemeral and created:
                self._ephemeral.add(name)
                link.on_close(partial(self._drop, name))
        if created:
            self._events.publish("session.created", {"session": name, "uid": wanted.uid, "profile": wanted.profile})
        return calls.SessionEnsured(
            session=self._info(self._records[name]),
            created=created,
            failed_folders=failed,
            narrowed=(*policy.narrowed, *told),
        )

    async def get(self, params: calls.SessionName) -> calls.SessionAnswer:
        """Raises `NotFound`."""
        return calls.SessionAnswer(session=self._info(self._find(params.session)))

    async def list(self) -> calls.SessionList:
        """By name."""
        return calls.SessionList(sessions=tuple(self._info(self._records[name]) for name in sorted(self._records)))

    async def delete(self, params: calls.SessionDelete) -> RemovedSession:
        """Remove the session and all it holds. Raises `NotFound`, `InvalidState` if commands run and `force` is not given."""
        name = self._find(params.session).name
        async with self._in_turn(name):
            return await self._delete(name, force=params.force, reason="asked for")

    async def open(self, name: str, /) -> SessionView:
        """See `ports.SessionDirectory`."""
        record = self._find_ready(name)
        if not self._openings.is_open(name):
            async with self._in_turn(name):
                record = self._find_ready(name)
                policy = await self._policies.effective(record.profile, record.limits)
                await self._openings.open(record, policy)
        return self._openings.view(record)

    async def set_policy(self, params: calls.SetPolicy) -> calls.PolicySet:
        """Another profile, other limits, another way out. Raises `NotFound`, `InvalidState` where commands run on profile or limits,
        and what is wrong with the settings; a change that fails changes nothing.
        """
        name = self._find(params.session).name
        async with self._in_turn(name):
            known = self._find_ready(name)
            wanted = _with_policy(known, params)
            policy = await self._policies.effective(wanted.profile, wanted.limits)
            egress, narrowed = self._policies.compose_egress(policy, wanted.egress)
            judge_folders(wanted.folders, policy.profile, self._own_directories)
            rebuilt = (known.profile, known.limits) != (wanted.profile, wanted.limits)
            if rebuilt and self._count(name):
                raise InvalidState(
                    f"commands of session {name} run on its profile and limits; end them, or change egress alone",
                    session=name,
                )
            # Shielded: a cancellation on the way would leave a session that reaches more than its record says.
            with trio.CancelScope(shield=True):
                await self._audit.record("policy.set", _policy_record(wanted, policy, narrowed))
                if rebuilt:
                    await self._openings.close(name)
                await self._keep(wanted)
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
            await self._keep(known)
            raise

    async def policy(self, params: calls.SessionName) -> calls.SessionPolicy:
        """What holds for a session now. Raises `NotFound`."""
        record = self._find(params.session)
        policy = await self._policies.effective(record.profile, record.limits)
        egress, narrowed = self._policies.compose_egress(policy, record.egress)
        return describe_policy(policy, egress, self._egress.allowances(record.name), narrowed)

    async def refresh(self) -> None:
        """The policies on disk have changed: let every open session's way out be as they say now."""
        # One that is being opened may have been judged by the old ones.
        busy = (name for name, lock in self._locks.items() if lock.locked())
        for name in {*self._openings.names, *busy}:
            async with self._in_turn(name):
                record = self._records.get(name)
                if record is not None and self._openings.is_open(name):
                    await self._refresh(record)

    async def _refresh(self, record: SessionRecord) -> None:
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

    async def reopen(self) -> None:
        """Take over the sessions in which commands run since before this coworkd."""
        for name in [name for name in self._records if self._count(name)]:
            try:
                await self.open(name)
            except CoworkError as error:
                _log.error("session %s cannot be taken over: %s", name, error.message)

    async def end_ephemeral(self) -> None:
        """Delete every ephemeral session: coworkd is stopping."""
        for name in sorted(self._ephemeral):
            await self._delete_quietly(name, "coworkd stops")

    # -- ensure, step by step -----------------------------------------------------------------------------------

    def _judge_resume(self, params: calls.SessionEnsure, known: SessionRecord | None) -> None:
        if known is not None and known.state == "deleting":
            raise InvalidState(
                f"session {params.name} is being deleted; try again when it is gone, or delete it again where that failed",
                session=params.name,
            )
        if params.resume == "new" and known is not None and known.state == "ready":
            raise AlreadyExists(f"session {params.name} exists; use resume=auto or delete it", session=params.name)
        if params.resume == "existing" and known is None:
            raise NotFound(f"there is no session {params.name}; use resume=auto to make it", session=params.name)

    async def _judge(self, params: calls.SessionEnsure, known: SessionRecord | None) -> EffectivePolicy:
        profile = params.profile or (known.profile if known else None)
        limits = params.limits or (known.limits if known else LimitsRequest())
        policy = await self._policies.effective(profile, limits)
        folders = tuple(params.folders) if params.folders is not None else (known.folders if known else ())
        judge_folders(folders, policy.profile, self._own_directories)
        await _in_thread(refuse_sockets, folders, policy.profile)
        await _in_thread(self._homes.refuse_system_name, params.name, known.uid if known else None)
        return policy

    async def _claim(
        self, name: str, params: calls.SessionEnsure, known: SessionRecord | None, policy: EffectivePolicy
    ) -> tuple[SessionRecord, bool]:
        """The record as wanted, and whether the session is new; a new one is written, so that its uid is its own."""
        if known is not None:
            return _updated(known, params), False
        if len(self._records) >= SESSION_LIMIT:
            raise LimitExceeded(f"there are {SESSION_LIMIT} sessions; delete some", limit=SESSION_LIMIT)
        async with self._claiming:
            uid = await _in_thread(self._homes.choose_uid, name, [record.uid for record in self._records.values()])
            fresh = SessionRecord(
                format=RECORD_FORMAT,
                name=name,
                uid=uid,
                gid=uid,
                profile=policy.profile.name,
                created_at=self._clock(),
                state="incomplete",
                ephemeral=params.ephemeral,
            )
            record = _updated(fresh, params)
            await self._audit.record("session.create", _audited(record, params))
            await self._keep(record)
        return record, True

    async def _realise(
        self, wanted: SessionRecord, policy: EffectivePolicy, *, changed: bool
    ) -> tuple[tuple[FailedFolder, ...], tuple[str, ...]]:
        name = wanted.name
        if changed:
            if self._count(name):
                raise InvalidState(
                    f"commands of session {name} run on its folders and profile; end them, then change it", session=name
                )
            await self._audit.record("session.ensure", _audited(wanted, None))
            # A crash from here on leaves a record that says so, and the next `ensure` opens the session anew.
            await self._keep(structs.replace(wanted, state="incomplete"))
            await self._openings.close(name)
        await _in_thread(self._homes.make, name, wanted.uid)
        # One that is open already is answered with what was told at its opening.
        opened = await self._openings.open(wanted, policy)
        ready = structs.replace(wanted, state="ready")
        if ready != self._records.get(name):
            await self._keep(ready)
        return _failed(ready, opened.missing), opened.told

    async def _keep(self, record: SessionRecord) -> None:
        await _in_thread(self._store.save, record)
        self._records[record.name] = record

    async def _restore(self, record: SessionRecord) -> None:
        """A change that failed changes nothing: what was there is opened again when it is needed."""
        name = record.name
        if self._records[name] == record:
            return
        try:
            await self._openings.close(name)
            await self._keep(record)
        except CoworkError as error:
            _log.error("session %s is left incomplete: %s", name, error.message)

    async def _take_back(self, record: SessionRecord, *, keep_home: bool) -> None:
        """Nothing stays of a session that could not be made, but a home that was there before it."""
        name = record.name
        try:
            await self._openings.close(name)
            if not keep_home:
                await _in_thread(self._homes.remove, name)
            await _in_thread(self._store.remove, name)
        except CoworkError as error:
            _log.error("session %s is left incomplete: %s", name, error.message)
            return
        self._records.pop(name, None)
        await self._audit.record(
            "session.delete", {"session": name, "uid": record.uid, "reason": "it could not be made"}
        )

    # -- delete -------------------------------------------------------------------------------------------------

    async def _delete(self, name: str, *, force: bool, reason: str) -> RemovedSession:
        record = self._find(name)
        if self._count(name) and not force:
            raise InvalidState(f"commands of session {name} still run; end them or use force", session=name)
        await self._audit.record(
            "session.delete", {"session": name, "uid": record.uid, "force": force, "reason": reason}
        )
        with trio.CancelScope(shield=True):
            deleting = structs.replace(record, state="deleting")
            await self._keep(deleting)
            if self._processes is not None:
                await self._processes.end_session(name)
            await self._openings.close(name)
            freed_bytes = await _in_thread(self._homes.remove, name)
            await _in_thread(self._store.remove, name)
            self._records.pop(name, None)
            self._ephemeral.discard(name)
        self._events.publish("session.deleted", {"session": name, "freed_bytes": freed_bytes})
        return RemovedSession(name=name, freed_bytes=freed_bytes)

    def _drop(self, name: str) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._delete_quietly, name, "its link is gone")

    async def _delete_quietly(self, name: str, reason: str) -> None:
        async with self._in_turn(name):
            if name not in self._records:
                return
            try:
                await self._delete(name, force=True, reason=reason)
            except CoworkError as error:
                _log.error("session %s could not be deleted: %s", name, error.message)

    # -- inside -------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> SessionRecord:
        record = self._records.get(parse_session_name(name))
        if record is None:
            raise NotFound(f"there is no session {name!r}; make it with session.ensure", session=name)
        return record

    def _find_ready(self, name: str) -> SessionRecord:
        record = self._find(name)
        if record.state == "deleting":
            raise InvalidState(f"session {name} is being deleted; where that failed, delete it again", session=name)
        if record.state != "ready":
            raise InvalidState(f"session {name} is {record.state}: call session.ensure again", session=name)
        return record

    @asynccontextmanager
    async def _in_turn(self, name: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(name, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nobody waits for it: what is kept does not grow with the names there ever were
                self._locks.pop(name, None)

    def _count(self, name: str) -> int:
        return self._processes.count(name) if self._processes is not None else 0

    def _info(self, record: SessionRecord) -> SessionInfo:
        return SessionInfo(
            name=record.name,
            uid=record.uid,
            gid=record.gid,
            home=sandbox_home(record.name).decode(),
            state=record.state,
            profile=record.profile,
            created_at=record.created_at,
            folders=record.folders,
            processes=self._count(record.name),
        )


def _updated(record: SessionRecord, params: calls.SessionEnsure) -> SessionRecord:
    given: dict[str, object] = {}
    if params.profile is not None:
        given["profile"] = params.profile
    if params.folders is not None:
        given["folders"] = tuple(params.folders)
    if params.limits is not None:
        given["limits"] = params.limits
    if params.env is not None:
        given["env"] = dict(params.env)
    return structs.replace(record, **given)


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


def _differs(old: SessionRecord, new: SessionRecord) -> bool:
    kept = (old.folders, old.profile, old.limits)
    return old.state != "ready" or kept != (new.folders, new.profile, new.limits)


def _failed(record: SessionRecord, missing: tuple[str, ...]) -> tuple[FailedFolder, ...]:
    return tuple(
        FailedFolder(name=folder.name, error=f"{folder.source} is not there")
        for folder in record.folders
        if folder_path(record.name, folder.name).decode() in missing
    )


def _audited(record: SessionRecord, params: calls.SessionEnsure | None) -> dict[str, object]:
    folders: tuple[FolderGrant, ...] = record.folders
    return {
        "session": record.name,
        "uid": record.uid,
        "gid": record.gid,
        "profile": record.profile,
        "resume": params.resume if params else None,
        "ephemeral": params.ephemeral if params else None,
        "folders": folders,
        "env_names": sorted(record.env),
    }


async def _in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """The one place where sessions touch the disk; trio waits for the thread even if cancelled."""
    return await trio.to_thread.run_sync(call, *arguments)
