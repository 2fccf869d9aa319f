"""Folders of sessions: the host's directories, mounted in a session's view while its commands run, and taken away again.

Rules
- The record says which folders a session has, and never less than is mounted: what goes is unmounted first, then the record is durable,
  then what is new is mounted. A crash anywhere leaves a state that the same call, or the next opening, brings to its end.
- A change that fails changes nothing. The audit log has it before it is begun.
- A folder that fails breaks its session only where it is required, and then with its reason, at `ensure` and before each command; an
  optional one is told (`failed_folders`, `folder.list`, the event `folder.failed`) and tried again at the next `ensure`.
- At most `AT_ONCE` are mounted at once, each within `folders_mounting.DEADLINE_S`. No source is looked at here.
- A guarded folder whose file system has ended is mounted again at once, at most `MENDS` times a minute.
- Folders go in reverse order; one that is in use is detached, and what still uses it is told. What a staged one holds back stays.

Staged changes are `stages`, deletes that ask and what is told of changes `guarding`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.errors import AlreadyExists, CoworkError, InvalidState, NotFound
from coworkd.model.names import parse_folder_name
from coworkd.model.policy import EffectivePolicy, Profile
from coworkd.model.ports import (
    AuditPort,
    AwayFolder,
    EventPort,
    FolderLauncherPort,
    FolderTurn,
    GuardPort,
    SessionFolders,
    StagePort,
    UnmountedFolder,
)
from coworkd.model.session import FailedFolder, FolderGrant, SessionRecord
from coworkd.sandbox.tree import folder_path
from coworkd.services.folders_journals import Journals
from coworkd.services.folders_judging import FolderRules
from coworkd.services.folders_live import Failing, Standing
from coworkd.services.folders_mounting import Mounter

AT_ONCE = 4
MENDS, MENDS_S = 3, 60.0
_MEND_AFTER_S = 0.2
"""A launcher that has gone takes every file system along: by then that is known."""
_KEPT = "what it holds back is kept, and is there again when it is mounted staged from the same source"
_FORBIDDEN = "what is configured forbids it"
_log = logging.getLogger("coworkd.folder")


class Folders:
    """Implements `ports.FoldersPort` and `ports.FolderHolds`, and the verbs `folder.*` but those of stages. `attach` before use."""

    def __init__(
        self,
        *,
        launcher: FolderLauncherPort,
        stages: StagePort,
        guard: GuardPort,
        rules: FolderRules,
        journals: Journals,
        audit: AuditPort,
        events: EventPort,
    ) -> None:
        self._launcher = launcher
        self._stages = stages
        self._rules = rules
        self._journals = journals
        self._audit = audit
        self._events = events
        self._mounter = Mounter(
            launcher=launcher, stages=stages, guard=guard, rules=rules, journals=journals, events=events
        )
        self._live = self._mounter.live
        self._away: set[str] = set()
        """Sessions with a folder that is worked on, out of their sight, in their turn."""
        self._nursery: trio.Nursery | None = None
        self._mended: dict[tuple[str, str], list[float]] = {}
        """When each was mended of late."""
        self._sessions: SessionFolders

    def attach(self, sessions: SessionFolders) -> None:
        """Say who knows the records."""
        self._sessions = sessions

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what is done in the background. Never returns."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def failed(self, session: str, name: str, reason: str) -> None:
        """What served a guarded folder has ended: it is mounted again, at the latest before the next command that requires it."""
        if not self._mounter.fail(session, name, reason) or self._nursery is None:
            return
        now = trio.current_time()
        recent = [at for at in self._mended.get((session, name), ()) if at > now - MENDS_S]
        if len(recent) < MENDS:
            self._mended[session, name] = [*recent, now]
            self._nursery.start_soon(self._mend, session, name)

    async def _mend(self, session: str, name: str) -> None:
        await trio.sleep(_MEND_AFTER_S)
        try:
            async with self._sessions.turn(session, opened=False) as turn:
                grant = _find(turn.record, name)
                if turn.is_open and grant is not None and isinstance(self._live.look(session).get(name), Failing):
                    await self._mount(session, (grant,), (await turn.effective()).profile)
        except CoworkError as error:
            _log.warning("folder %s of session %s is not mounted again: %s", name, session, error.message)

    # -- for sessions: ports.FoldersPort ------------------------------------------------------------------------

    async def judge(self, folders: Sequence[FolderGrant], policy: EffectivePolicy, /) -> None:
        """See `ports.FoldersPort`."""
        self._rules.judge(folders, policy.profile)
        await trio.to_thread.run_sync(self._rules.refuse_sockets, folders, policy.profile)

    async def mount_all(
        self, record: SessionRecord, policy: EffectivePolicy, /, *, left: Sequence[str] = ()
    ) -> tuple[FailedFolder, ...]:
        """See `ports.FoldersPort`."""
        session = record.name
        self._mounter.let_go_of_stale(session)
        allowed = tuple(grant for grant in record.folders if self._mounter.allows(grant, policy.profile))
        await self._shrink(structs.replace(record, folders=allowed), reason=_FORBIDDEN)
        for name in sorted(set(left) - {grant.name for grant in allowed}):
            await self._record_loss(
                session, name, _FORBIDDEN if _find(record, name) else "an earlier coworkd has left it"
            )
            await self._mounter.clear(session, name)
        await self._mounter.prepare(session, record.folders)
        failing = await self._mount(session, record.folders, policy.profile)
        self._live.arrange(session, [grant.name for grant in record.folders])
        for each in failing:
            if each.grant.required:
                raise each.error
        return tuple(FailedFolder(name=each.grant.name, error=each.error.message) for each in failing)

    async def withdraw(self, record: SessionRecord, reason: str, /) -> None:
        """See `ports.FoldersPort`."""
        failed: CoworkError | None = None
        for grant in reversed(record.folders):
            await self._record_loss(record.name, grant.name, reason)
            try:
                await self._mounter.clear(record.name, grant.name)
            except CoworkError as error:
                failed = error
        if failed is not None:
            raise failed

    async def shrink(self, record: SessionRecord, /) -> None:
        """See `ports.FoldersPort`."""
        await self._shrink(record)

    def lacks(self, session: str, /) -> bool:
        """See `ports.FoldersPort`."""
        if session in self._away:  # a command that starts now waits until its folder is back
            return True
        return any(isinstance(each, Failing) and each.grant.required for each in self._live.look(session).values())

    async def unmount_all(self, session: str, /) -> None:
        """See `ports.FoldersPort`."""
        self._mounter.let_go(session)
        for key in [key for key in self._mended if key[0] == session]:
            del self._mended[key]

    async def forget(self, session: str, /) -> None:
        """See `ports.FoldersPort`."""
        await self._stages.forget(session, None)
        await trio.to_thread.run_sync(self._journals.forget, session)

    # -- verbs --------------------------------------------------------------------------------------------------

    async def mount(self, params: calls.FolderMount) -> calls.FolderAnswer:
        """Give a session another folder, opening it where it is not. One that it has already is mounted where it is not.

        Raises `AlreadyExists` where it has another of that name, what judging raises, and for a required one why it cannot be mounted.
        """
        grant = FolderGrant(name=params.name, source=params.source, mode=params.mode, required=params.required)
        async with self._sessions.turn(params.session, opened=True) as turn:
            known = _find(turn.record, parse_folder_name(grant.name))
            if known is not None and (known.source, known.mode) != (grant.source, grant.mode):
                raise AlreadyExists(
                    f"session {turn.record.name} has a folder {grant.name!r} already, {known.mode} of {known.source};"
                    " unmount it, or change its mode",
                    folder=grant.name,
                )
            await self._change(turn, grant, "folder.mount", {"source": grant.source, "required": grant.required})
            return calls.FolderAnswer(folder=self._info(turn.record.name, grant, is_open=True))

    async def set_mode(self, params: calls.FolderSetMode) -> calls.FolderAnswer:
        """Another mode: by another rule where the folder is guarded, else by mounting it anew. What uses it keeps the old one.

        Raises `NotFound`, what judging raises, and why it cannot be mounted; it is as it was then.
        """
        async with self._sessions.turn(params.session, opened=False) as turn:
            known = _known(turn.record, params.name)
            grant = structs.replace(known, mode=params.mode)
            await self._change(turn, grant, "folder.mode", {"before": known.mode})
            return calls.FolderAnswer(folder=self._info(turn.record.name, grant, is_open=turn.is_open))

    async def unmount(self, params: calls.FolderUnmount) -> calls.FolderUnmounted:
        """Take a folder away from a session; what it has in it is the host's and stays. Raises `NotFound`."""
        async with self._sessions.turn(params.session, opened=False) as turn:
            known = _known(turn.record, params.name)
            with trio.CancelScope(shield=True):
                await self._audit.record(
                    "folder.unmount", {"session": turn.record.name, "name": known.name, "reason": "asked for"}
                )
                gone = await self._unmount(turn, known)
        kept = (_KEPT,) if known.mode == "staged" else ()
        return calls.FolderUnmounted(busy=gone.busy, leftovers=(*gone.leftovers, *kept))

    async def list(self, params: calls.FolderList) -> calls.Folders:
        """In the order they were given. Raises `NotFound`."""
        record = self._sessions.record(params.session)
        is_open = self._sessions.is_open(record.name)
        return calls.Folders(
            folders=tuple(self._info(record.name, grant, is_open=is_open) for grant in record.folders)
        )  # fmt: skip

    # -- for stages: ports.FolderHolds --------------------------------------------------------------------------

    def find(self, session: str, name: str, /) -> AwayFolder:
        """See `ports.FolderHolds`."""
        record = self._sessions.record(session)
        grant = _known(record, name)
        place = self._rules.place(grant)
        return AwayFolder(record=record, grant=grant, root=place.root, source=place.source)

    @asynccontextmanager
    async def away(self, session: str, name: str, /) -> AsyncIterator[AwayFolder]:
        """See `ports.FolderHolds`."""
        async with self._sessions.turn(session, opened=False) as turn:
            grant = _known(turn.record, name)
            place = self._rules.place(grant)
            policy = await turn.effective()
            stood = turn.is_open and self._live.standing(turn.record.name, name) is not None
            self._away.add(turn.record.name)
            try:
                if stood or not turn.is_open:  # one that is not open may have it from an earlier coworkd
                    await self._take_away_idle(turn.record.name, name)
                try:
                    yield AwayFolder(record=turn.record, grant=grant, root=place.root, source=place.source)
                finally:
                    if stood:
                        with trio.CancelScope(shield=True):
                            await self._mount(turn.record.name, (grant,), policy.profile)
            finally:
                self._away.discard(turn.record.name)

    async def _take_away_idle(self, session: str, name: str) -> None:
        gone = await self._mounter.clear(session, name, lazy=False)
        if gone.busy:
            used = f" ({'; '.join(gone.leftovers)})" if gone.leftovers else ""
            raise InvalidState(
                f"folder {name!r} of session {session} is in use{used}; end the commands that use it", folder=name
            )

    # -- inside -------------------------------------------------------------------------------------------------

    async def _change(self, turn: FolderTurn, grant: FolderGrant, kind: str, said: dict[str, object]) -> None:
        """Let the session have `grant`, in the place of the one of that name; on failure all is as before."""
        old, policy = turn.record, await turn.effective()
        wanted = _with(old, grant)
        await self.judge(wanted.folders, policy)
        if wanted == old and (not turn.is_open or self._live.standing(old.name, grant.name) is not None):
            return
        with trio.CancelScope(shield=True):
            await self._audit.record(kind, {"session": old.name, "name": grant.name, "mode": grant.mode, **said})
            try:
                await self._become(turn, wanted, grant, policy.profile)
            except BaseException:
                await self._restore(turn, old, grant.name, policy.profile)
                raise

    async def _become(self, turn: FolderTurn, wanted: SessionRecord, grant: FolderGrant, profile: Profile) -> None:
        left: tuple[str, ...] = ()
        if turn.is_open:
            left = (await self._shrink(wanted)).get(grant.name, UnmountedFolder(busy=False, leftovers=())).leftovers
        if turn.record != wanted:
            await turn.keep(wanted)
        if not turn.is_open:
            return
        await self._mounter.prepare(wanted.name, wanted.folders)
        failing = await self._mount(wanted.name, (grant,), profile)
        if failing and grant.required:
            raise failing[0].error
        standing = self._live.standing(wanted.name, grant.name)
        if left and standing is not None:
            told = (*standing.degraded, *left)
            self._live.of(wanted.name)[grant.name] = standing._replace(degraded=told)

    async def _restore(self, turn: FolderTurn, old: SessionRecord, name: str, profile: Profile) -> None:
        """What is running gets back what it had, as far as it is still there."""
        try:
            if turn.is_open:
                await self._shrink(old)
            if turn.record != old:
                await turn.keep(old)
            before = _find(old, name)
            if turn.is_open:
                await self._mount(old.name, () if before is None else (before,), profile)
        except CoworkError as error:
            _log.error("folder %s of session %s is left half-way: %s", name, old.name, error.message)

    async def _unmount(self, turn: FolderTurn, known: FolderGrant) -> UnmountedFolder:
        record = turn.record
        wanted = structs.replace(record, folders=tuple(each for each in record.folders if each.name != known.name))
        gone = UnmountedFolder(busy=False, leftovers=())
        if turn.is_open:
            gone = (await self._shrink(wanted)).get(known.name, gone)
        else:  # one that this coworkd has not opened yet may have it from an earlier one
            gone = await self._mounter.clear(record.name, known.name)
        try:
            await turn.keep(wanted)
            await self._mounter.prepare(record.name, wanted.folders)
        except CoworkError:
            if turn.is_open and turn.record == record:
                await self._mount(record.name, (known,), (await turn.effective()).profile)
            raise
        return gone

    async def _shrink(self, record: SessionRecord, *, reason: str | None = None) -> dict[str, UnmountedFolder]:
        """What was taken away, by name. `reason` is recorded of each, where no call has recorded what becomes of them."""
        wanted = {grant.name: grant for grant in record.folders}
        gone: dict[str, UnmountedFolder] = {}
        for name, folder in reversed(tuple(self._live.look(record.name).items())):
            if isinstance(folder, Standing):
                if name not in wanted or not folder.becomes(wanted[name]):
                    if reason is not None:
                        await self._record_loss(record.name, name, reason)
                    gone[name] = await self._mounter.take_away(record.name, name)
            elif name not in wanted:
                self._live.of(record.name).pop(name, None)
        return gone

    async def _record_loss(self, session: str, name: str, reason: str) -> None:
        """Before it goes. A log that refuses keeps nobody a folder that he may not have."""
        try:
            await self._audit.record("folder.unmount", {"session": session, "name": name, "reason": reason})
        except CoworkError as error:
            _log.error("that folder %s of session %s goes is not in the audit log: %s", name, session, error.message)

    async def _mount(self, session: str, grants: Sequence[FolderGrant], profile: Profile) -> tuple[Failing, ...]:
        """Mount them; those that failed, in order. Raises what is no single folder's failure."""
        room = trio.CapacityLimiter(AT_ONCE)
        found: dict[str, Standing | Failing | CoworkError] = {}

        async def mount(grant: FolderGrant) -> None:
            async with room:
                try:
                    found[grant.name] = await self._mounter.mount(session, grant, profile)
                except CoworkError as error:
                    found[grant.name] = error

        async with trio.open_nursery() as nursery:
            for grant in grants:
                nursery.start_soon(mount, grant)
        outcomes = [found[grant.name] for grant in grants]
        for outcome in outcomes:
            if isinstance(outcome, CoworkError):
                raise outcome
        return tuple(outcome for outcome in outcomes if isinstance(outcome, Failing))

    def _info(self, session: str, grant: FolderGrant, *, is_open: bool) -> calls.FolderInfo:
        known = self._live.look(session).get(grant.name) if is_open else None
        standing = known if isinstance(known, Standing) else None
        return calls.FolderInfo(
            name=grant.name,
            source=grant.source,
            mode=grant.mode,
            required=grant.required,
            state="closed" if known is None else "mounted" if standing else "failed",
            path=folder_path(session, grant.name).decode(),
            mounted_as=standing.mounted_as if standing else None,
            error=known.error.message if isinstance(known, Failing) else None,
            degraded=standing.degraded if standing else (),
        )


def _find(record: SessionRecord, name: str) -> FolderGrant | None:
    return next((grant for grant in record.folders if grant.name == name), None)


def _known(record: SessionRecord, name: str) -> FolderGrant:
    grant = _find(record, name)
    if grant is None:
        there = ", ".join(each.name for each in record.folders) or "none"
        raise NotFound(f"session {record.name} has no folder {name!r}; it has {there}", folder=name)
    return grant


def _with(record: SessionRecord, grant: FolderGrant) -> SessionRecord:
    """The record with `grant` in the place of the one of that name, or at the end."""
    folders = tuple(grant if each.name == grant.name else each for each in record.folders)
    return structs.replace(record, folders=folders if grant in folders else (*folders, grant))
