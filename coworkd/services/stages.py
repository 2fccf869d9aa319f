"""Staged folders: what their sessions changed is held back on the session disk until the host takes or drops it.

Rules
- Here is who may, and what is told; the work on files is that of the `stage` workers (`stages_workers`), never of this process.
- A commit or discard is done while no session sees the folder (`ports.FolderHolds`): nothing changes under a mounted overlay. Where a
  command uses the folder it is `InvalidState`.
- The audit log has a commit or discard before it begins; what came of a commit is a second record.
- The baseline of a source is taken when its stage begins to hold changes, in the background: no folder waits for it. Until it is there, a
  source's entry is in conflict where its ctime is later than the stage's beginning. Whatever is not known is decided so that nobody's
  change is lost.
- A commit whose worker ends half-way has done each path or not begun it; the same call again goes on from there.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, DiskFailed, InvalidParams, InvalidState, MountFailed, NotFound
from coworkd.model.names import OsBytes, parse_folder_name
from coworkd.model.ports import AuditPort, AwayFolder, EventPort, FolderHolds, FolderLauncherPort, SessionFolders
from coworkd.model.stage import (
    BaselineTaken,
    CommitStaged,
    DiffStaged,
    DiscardStaged,
    ForgetStage,
    ListStaged,
    PathResult,
    Prepared,
    PrepareStage,
    StageCommitted,
    Staged,
    StagedDiff,
    StageDiscarded,
    StagedListed,
    StageForgotten,
    StagePlace,
    StageRefused,
    TakeBaseline,
    TidyStage,
)
from coworkd.services.stages_workers import SourceSilent, StageWorkers
from coworkd.system.sha256 import hex_digest

PREPARE_S = 5.0
QUIET_S = 60.0
BASELINES_AT_ONCE = 2
_PATH_LIMIT_BYTES = 64 * 1024
_log = logging.getLogger("coworkd.folder")
_A = TypeVar("_A")


class Stages:
    """Implements `ports.StagePort`, and `folder.changes`, `folder.commit` and `folder.discard`. `attach` and `serve` before use."""

    def __init__(self, state_dir: str, *, launcher: FolderLauncherPort, audit: AuditPort, events: EventPort) -> None:
        self._directory = os.path.join(state_dir, "stages")
        self._workers = StageWorkers(launcher)
        self._audit = audit
        self._events = events
        self._nursery: trio.Nursery | None = None
        self._baselines: dict[bytes, trio.CancelScope] = {}
        self._tidying: set[bytes] = set()
        self._room = trio.CapacityLimiter(BASELINES_AT_ONCE)
        self._folders: FolderHolds
        self._sessions: SessionFolders

    def attach(self, folders: FolderHolds, sessions: SessionFolders) -> None:
        """Say who mounts folders, and who knows the records."""
        self._folders = folders
        self._sessions = sessions

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the workers and what they do in the background. Never returns."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._workers.serve)
            task_status.started()
            await trio.sleep_forever()

    # -- for folders: ports.StagePort ---------------------------------------------------------------------------

    async def prepare(self, session: str, folder: str, source: tuple[bytes, bytes], /) -> bytes:
        """See `ports.StagePort`. Raises `DiskFailed`, `Unavailable`, and `MountFailed` where the source does not answer."""
        record = self._sessions.record(session)
        place = self._place(session, folder, *source)
        self._end_baseline(place.stage)
        request = PrepareStage(id=0, place=place, uid=record.uid, gid=record.gid)
        try:
            answer = await self._workers.ask(request, Prepared, quiet_s=PREPARE_S)
        except SourceSilent as error:
            raise MountFailed(error.message, errno=errno.ETIMEDOUT, folder=folder) from error
        if isinstance(answer, StageRefused):
            raise DiskFailed(
                f"the stage of folder {folder!r} cannot be made: {answer.message}", errno=answer.errno, folder=folder
            )
        if answer.needs_baseline and self._nursery is not None:
            self._nursery.start_soon(self._take_baseline, place)
        if answer.needs_tidying:
            self._tidy_later(place)
        return place.stage

    async def forget(self, session: str, folder: str | None, /) -> None:
        """See `ports.StagePort`. Raises `DiskFailed`, `Unavailable`."""
        path = os.path.join(self._directory, session, *([] if folder is None else [folder])).encode()
        for stage in [each for each in self._baselines if each == path or each.startswith(path + b"/")]:
            self._end_baseline(stage)
        if not await trio.to_thread.run_sync(os.path.isdir, path):
            return
        answer = await self._workers.ask(ForgetStage(id=0, path=path), StageForgotten, quiet_s=QUIET_S)
        if isinstance(answer, StageRefused):
            raise DiskFailed(f"{path.decode()} cannot be removed: {answer.message}", errno=answer.errno)

    # -- verbs --------------------------------------------------------------------------------------------------

    async def changes(self, params: calls.FolderChanges) -> calls.StagedChanges:
        """What is held back, a page of it. Raises `NotFound`, `InvalidState` for another mode, `DiskFailed`, `Unavailable`."""
        place = self._look_up(params.session, params.name)
        diff = None
        if params.diff is not None:
            diff = await self._diff(place, *parse_paths((params.diff,)))
        (after,) = parse_paths((params.after,)) if params.after else (b"",)
        request = ListStaged(id=0, place=place, after=after, limit=params.limit)
        answer = self._done(await self._workers.ask(request, StagedListed, quiet_s=QUIET_S), params.name)
        return calls.StagedChanges(
            changes=tuple(_told(change) for change in answer.changes),
            total=answer.total,
            more=answer.more,
            diff=None if diff is None else OsBytes(diff),
        )

    async def commit(self, params: calls.FolderCommit) -> calls.FolderCommitted:
        """Bring changes into the folder's source. Raises `NotFound`, `InvalidState` where it is in use or of another mode, `DiskFailed`,
        and `Unavailable`, after which it may be done in part: the same again goes on.
        """
        paths = None if params.paths is None else parse_paths(params.paths)
        async with self._away(params.session, params.name) as place:
            said = {"session": params.session, "name": params.name, "paths": paths, "overwrite": params.overwrite}
            await self._audit.record("folder.commit", said)
            request = CommitStaged(id=0, place=place, paths=paths, overwrite=params.overwrite)
            answer = self._done(await self._workers.ask(request, StageCommitted, quiet_s=QUIET_S), params.name)
            counts = {"committed": answer.committed, "conflicts": answer.conflicts, "failed": answer.failed}
            done = [result.path for result in answer.results if result.state == "committed"]
            await self._audit.record(
                "folder.committed", {"session": params.session, "name": params.name, **counts, "paths": done}
            )
        self._tidy_later(place)
        self._events.publish("folder.committed", {"session": params.session, "name": params.name, **counts})
        return calls.FolderCommitted(
            **counts, results=tuple(_result(each) for each in answer.results), left_out=answer.left_out
        )

    async def discard(self, params: calls.FolderDiscard) -> calls.FolderDiscarded:
        """Drop changes. Raises as `commit` does."""
        paths = None if params.paths is None else parse_paths(params.paths)
        async with self._away(params.session, params.name) as place:
            said: dict[str, Any] = {"session": params.session, "name": params.name}
            await self._audit.record("folder.discard", {**said, "paths": paths})
            request = DiscardStaged(id=0, place=place, paths=paths)
            answer = self._done(await self._workers.ask(request, StageDiscarded, quiet_s=QUIET_S), params.name)
        self._tidy_later(place)
        self._events.publish("folder.discarded", {**said, "discarded": answer.discarded})
        return calls.FolderDiscarded(discarded=answer.discarded)

    # -- inside -------------------------------------------------------------------------------------------------

    def _place(self, session: str, folder: str, root: bytes, source: bytes) -> StagePlace:
        """What was held back from one source says nothing about another that is mounted under the same name."""
        of_source = hex_digest(os.path.join(root, source))[:16]
        stage = os.path.join(self._directory, session, folder, of_source)
        return StagePlace(stage=stage.encode(), root=root, source=source)

    def _look_up(self, session: str, name: str) -> StagePlace:
        return self._stage_of(self._folders.find(session, parse_folder_name(name)))

    def _stage_of(self, found: AwayFolder) -> StagePlace:
        grant = found.grant
        if grant.mode != "staged":
            raise InvalidState(
                f"folder {grant.name!r} of session {found.record.name} is {grant.mode}, so nothing of it is held back",
                folder=grant.name,
            )
        return self._place(found.record.name, grant.name, found.root, found.source)

    @asynccontextmanager
    async def _away(self, session: str, name: str) -> AsyncIterator[StagePlace]:
        """The stage, while nobody sees its folder."""
        self._look_up(session, name)
        async with self._folders.away(session, name) as found:
            place = self._stage_of(found)
            self._end_baseline(place.stage)
            yield place

    async def _diff(self, place: StagePlace, path: bytes) -> bytes | None:
        answer = await self._workers.ask(DiffStaged(id=0, place=place, path=path), StagedDiff, quiet_s=QUIET_S)
        if isinstance(answer, StageRefused) and answer.missing:
            raise NotFound(answer.message, path=path.decode("utf-8", "backslashreplace"))
        return self._done(answer, path.decode("utf-8", "backslashreplace")).diff

    def _done(self, answer: _A | StageRefused, name: str) -> _A:
        if isinstance(answer, StageRefused):
            raise DiskFailed(f"folder {name!r}: {answer.message}", errno=answer.errno, folder=name)
        return answer

    def _tidy_later(self, place: StagePlace) -> None:
        """Removing what was put aside is nobody's to wait for."""
        if self._nursery is not None and place.stage not in self._tidying:
            self._tidying.add(place.stage)
            self._nursery.start_soon(self._tidy, place.stage)

    async def _tidy(self, stage: bytes) -> None:
        try:
            async with self._room:
                answer = await self._workers.ask(TidyStage(id=0, path=stage), StageForgotten, quiet_s=QUIET_S)
        except CoworkError as error:
            _log.warning("%s is tidied when it is mounted again: %s", stage.decode(), error.message)
            return
        finally:
            self._tidying.discard(stage)
        if isinstance(answer, StageRefused):
            _log.warning("%s is tidied when it is mounted again: %s", stage.decode(), answer.message)

    async def _take_baseline(self, place: StagePlace) -> None:
        """One that fails is logged: until the next time the stage is empty, conflicts are found by time."""
        with trio.CancelScope() as scope:
            self._baselines[place.stage] = scope
            try:
                async with self._room:
                    answer = await self._workers.ask(TakeBaseline(id=0, place=place), BaselineTaken, quiet_s=QUIET_S)
            except CoworkError as error:
                _log.warning("no baseline of %s: %s", place.stage.decode(), error.message)
                return
            finally:
                if self._baselines.get(place.stage) is scope:
                    del self._baselines[place.stage]
            if isinstance(answer, StageRefused):
                _log.warning("no baseline of %s: %s", place.stage.decode(), answer.message)
            elif not answer.complete:
                _log.warning("the baseline of %s ends after %d entries", place.stage.decode(), answer.entries)

    def _end_baseline(self, stage: bytes) -> None:
        scope = self._baselines.pop(stage, None)
        if scope is not None:
            scope.cancel()


def parse_paths(paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Paths below a folder, as a walk names them; the folder itself is empty. Raises `InvalidParams`."""
    parsed = []
    for path in paths:
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if path.startswith(b"/") or b".." in parts or len(path) > _PATH_LIMIT_BYTES:
            shown = path[:200].decode("utf-8", "backslashreplace")
            raise InvalidParams(f"{shown!r} is no path below the folder: no leading '/', no '..'", key="paths")
        parsed.append(b"/".join(parts))
    return tuple(parsed)


def _told(change: Staged) -> calls.StagedChange:
    return calls.StagedChange(
        path=OsBytes(change.path),
        kind=change.kind,
        entry=change.entry,
        size=change.size,
        old_size=change.old_size,
        was=change.was,
        before=None if change.before is None else OsBytes(change.before),
        entries=change.entries,
        conflict=change.conflict,
    )


def _result(result: PathResult) -> calls.CommitResult:
    return calls.CommitResult(path=OsBytes(result.path), state=result.state, reason=result.reason)
