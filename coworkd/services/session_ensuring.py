"""`session.ensure`, step by step: judge (names, policy, folders) → audit → record `incomplete` → home and account → open in the launcher,
with its folders → record `ready`.

Rules
- A step that fails leaves a record that says how far it came; a session that never was is taken back whole, a change that fails
  changes nothing.
- Folders come and go under running commands: what goes is taken away first, then the record is durable, then what is new is mounted.
  Profile and limits change when the session is idle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.errors import AlreadyExists, CoworkError, InvalidParams, InvalidState, LimitExceeded, NotFound
from coworkd.model.names import parse_session_name
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.model.ports import AuditPort, FoldersPort, PolicyPort
from coworkd.model.session import RECORD_FORMAT, FailedFolder, FolderGrant, SessionRecord
from coworkd.services.session_home import Homes
from coworkd.services.session_opening import Opened, Openings
from coworkd.services.session_recovering import Recovering
from coworkd.services.session_table import SessionTable, in_thread

SESSION_LIMIT = 10_000
_log = logging.getLogger("coworkd.session")


class Ensured(NamedTuple):
    """What came of it."""

    record: SessionRecord
    created: bool
    failed: tuple[FailedFolder, ...]
    narrowed: tuple[str, ...]


class Ensuring:
    """Makes sessions, and brings them up to what is asked. `ensure` is called in the session's turn."""

    def __init__(
        self,
        *,
        table: SessionTable,
        homes: Homes,
        openings: Openings,
        recovering: Recovering,
        folders: FoldersPort,
        policies: PolicyPort,
        audit: AuditPort,
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._homes = homes
        self._openings = openings
        self._recovering = recovering
        self._folders = folders
        self._policies = policies
        self._audit = audit
        self._clock = clock
        self._claiming = trio.Lock()

    async def ensure(self, params: calls.SessionEnsure) -> Ensured:
        """See `Sessions.ensure`."""
        name = parse_session_name(params.name)
        self._table.refuse_reserved(name)
        known = self._table.records.get(name)
        _judge_resume(params, known)
        policy = await self._judge(params, known)
        if known is not None and known.reown_from:
            known = await self._recovering.resolve(known)
        home_found = known is not None or await in_thread(self._homes.exists, name)
        wanted, created = await self._claim(name, params, known, policy)
        try:
            opened = await self._realise(wanted, policy, known, skeleton=params.skeleton is not False)
        except BaseException:
            with trio.CancelScope(shield=True):
                if known is not None:
                    await self._restore(known, wanted, policy)
                elif not self._table.records[name].reown_from:  # else its home is half another's: the next one goes on
                    await self._take_back(wanted, keep_home=home_found)
            raise
        return Ensured(self._table.records[name], created, opened.failed, (*policy.narrowed, *opened.told))

    async def _judge(self, params: calls.SessionEnsure, known: SessionRecord | None) -> EffectivePolicy:
        profile = params.profile or (known.profile if known else None)
        limits = params.limits or (known.limits if known else LimitsRequest())
        policy = await self._policies.effective(profile, limits)
        folders = tuple(params.folders) if params.folders is not None else (known.folders if known else ())
        await self._folders.judge(folders, policy)
        if params.skeleton and not self._homes.skeleton:
            raise InvalidParams(
                "no skeleton is configured; set skeleton in coworkd.toml, or leave it out", key="skeleton"
            )
        if known is None:  # one that is known does without an account where its name is another's by now
            await in_thread(self._homes.refuse_system_name, params.name, None)
        return policy

    async def _claim(
        self, name: str, params: calls.SessionEnsure, known: SessionRecord | None, policy: EffectivePolicy
    ) -> tuple[SessionRecord, bool]:
        """The record as wanted, and whether the session is new; a new one is written, so that its uid is its own."""
        if known is not None:
            return _updated(known, params), False
        if len(self._table.records) >= SESSION_LIMIT:
            raise LimitExceeded(f"there are {SESSION_LIMIT} sessions; delete some", limit=SESSION_LIMIT)
        async with self._claiming:
            uid = await in_thread(self._homes.choose_uid, name, self._table.uids)
            owner = await in_thread(self._homes.owner, name)
            fresh = SessionRecord(
                format=RECORD_FORMAT,
                name=name,
                uid=uid,
                gid=uid,
                profile=policy.profile.name,
                created_at=self._clock(),
                state="incomplete",
                ephemeral=params.ephemeral,
                reown_from=() if owner in (None, uid) else (owner,),
            )
            record = _updated(fresh, params)
            await self._audit.record("session.create", _audited(record, params))
            await self._table.keep(record)
        return record, True

    async def _realise(
        self, wanted: SessionRecord, policy: EffectivePolicy, known: SessionRecord | None, *, skeleton: bool
    ) -> Opened:
        if wanted.reown_from:
            wanted = await self._recovering.resolve(wanted)
        if known is not None and _is_rebuilt(known, wanted):
            await self._rebuild(wanted)
        elif known is not None and known.folders != wanted.folders:
            await self._audit.record("session.ensure", _audited(wanted, None))
            if self._openings.is_open(wanted.name):
                await self._folders.shrink(wanted)
            await self._table.keep(wanted)
        await in_thread(self._make_home, wanted, policy, skeleton)
        # One that is open already is answered with what was told at its opening.
        opened = await self._openings.open(wanted, policy)
        ready = structs.replace(wanted, state="ready")
        if ready != self._table.records.get(wanted.name):
            await self._table.keep(ready)
        return opened

    def _make_home(self, wanted: SessionRecord, policy: EffectivePolicy, skeleton: bool) -> None:  # for a thread
        self._homes.make(wanted.name, wanted.uid, skeleton)
        self._homes.limit(wanted.name, wanted.uid, policy.profile.limits.disk_max_bytes)

    async def _rebuild(self, wanted: SessionRecord) -> None:
        name = wanted.name
        if self._table.count(name):
            raise InvalidState(
                f"commands of session {name} run on its profile and limits; end them, then change it", session=name
            )
        await self._audit.record("session.ensure", _audited(wanted, None))
        # A crash from here on leaves a record that says so, and the next `ensure` opens the session anew.
        await self._table.keep(structs.replace(wanted, state="incomplete"))
        await self._openings.close(name)

    async def _restore(self, known: SessionRecord, wanted: SessionRecord, policy: EffectivePolicy) -> None:
        """A change that failed changes nothing: what was there is opened again when it is needed."""
        try:
            if _is_rebuilt(known, wanted):
                if self._table.records[known.name] != known:
                    await self._openings.close(known.name)
                    await self._table.keep(known)
            elif known.folders != wanted.folders:
                await self._restore_folders(known, policy)
        except CoworkError as error:
            _log.error("session %s is left as it is half-way: %s", known.name, error.message)

    async def _restore_folders(self, known: SessionRecord, policy: EffectivePolicy) -> None:
        """The commands that run get back what they had, as far as it is still there."""
        is_open = self._openings.is_open(known.name)
        if is_open:
            await self._folders.shrink(known)
        if self._table.records[known.name] != known:
            await self._table.keep(known)
        if is_open:
            await self._folders.mount_all(known, policy)

    async def _take_back(self, record: SessionRecord, *, keep_home: bool) -> None:
        """Nothing stays of a session that could not be made, but a home that was there before it."""
        name = record.name
        try:
            await self._openings.close(name)
            if not keep_home:
                await self._folders.forget(name)
                await in_thread(self._homes.remove, name)
            await self._table.drop(name)
        except CoworkError as error:
            _log.error("session %s is left incomplete: %s", name, error.message)
            return
        await self._audit.record(
            "session.delete", {"session": name, "uid": record.uid, "reason": "it could not be made"}
        )


def _judge_resume(params: calls.SessionEnsure, known: SessionRecord | None) -> None:
    if known is not None and known.state == "deleting":
        raise InvalidState(
            f"session {params.name} is being deleted; try again when it is gone, or delete it again where that failed",
            session=params.name,
        )
    if params.resume == "new" and known is not None and known.state == "ready":
        raise AlreadyExists(f"session {params.name} exists; use resume=auto or delete it", session=params.name)
    if params.resume == "existing" and known is None:
        raise NotFound(f"there is no session {params.name}; use resume=auto to make it", session=params.name)


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


def _is_rebuilt(old: SessionRecord, new: SessionRecord) -> bool:
    """Whether what running commands stand on changes."""
    return old.state != "ready" or (old.profile, old.limits) != (new.profile, new.limits)


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
