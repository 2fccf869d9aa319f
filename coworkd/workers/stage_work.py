"""What a `stage` worker does for each request: requests in, answers out. Words: `model.stage`.

Rules
- A request that cannot be done is one `StageRefused`, and the next is answered as ever.
- Lists are bounded by count and by bytes: what finds no room is `more`, or counted in `left_out`.
- `step` is called before everything that may take long, and may raise to end it there, as a kill would.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

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
    StageAnswer,
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
    ToStage,
)
from coworkd.system.beneath import DIRECTORY
from coworkd.system.remove_tree import remove_tree
from coworkd.workers.stage_baseline import take_baseline
from coworkd.workers.stage_changes import CHANGE_LIMIT, Change, Selection, TooManyChanges, find_changes
from coworkd.workers.stage_clear import clear_settled, empty_trash, find_trash, give_up, give_up_all
from coworkd.workers.stage_commit import Commit
from coworkd.workers.stage_conflicts import HOLLOW, conflict_of, is_hollow
from coworkd.workers.stage_diff import NoDiff, make_diff
from coworkd.workers.stage_entries import kind_of, walk_key
from coworkd.workers.stage_remove import is_untouched
from coworkd.workers.stage_renames import find_renames
from coworkd.workers.stage_room import Stage, has_intent, is_made, make_stage, wait_for_tick

PAGE_LIMIT = 2000
RESULT_LIMIT = 2000
TEXT_LIMIT_BYTES = 1024 * 1024
"""How many bytes of paths and reasons one answer has."""

_TIDIERS = 1000
"""How often removing a stage is begun again because something of it has just gone."""
Step = Callable[[bytes], None]


def answer(request: ToStage, step: Step, *, xattr_prefix: str = "trusted.") -> StageAnswer:
    """Do what is asked, and say what came of it. Raises only what `step` raises."""
    try:
        return _Work(step, xattr_prefix).answer(request)
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
        return StageRefused(id=request.id, errno=error.errno, message=f"{error.strerror or error}{where}")
    except (TooManyChanges, ValueError) as error:
        return StageRefused(id=request.id, errno=None, message=str(error))


class _Work:
    def __init__(self, step: Step, xattr_prefix: str) -> None:
        self._step = step
        self._prefix = xattr_prefix

    def answer(self, request: ToStage) -> StageAnswer:
        if isinstance(request, (ListStaged, CommitStaged, DiscardStaged)) and not is_made(request.place.stage):
            return self._answer_nothing(request)
        if isinstance(request, PrepareStage):
            return self._prepare(request)
        if isinstance(request, TakeBaseline):
            return self._take_baseline(request)
        if isinstance(request, ListStaged):
            return self._list(request)
        if isinstance(request, DiffStaged):
            return self._diff(request)
        if isinstance(request, CommitStaged):
            return self._commit(request)
        if isinstance(request, DiscardStaged):
            return self._discard(request)
        if isinstance(request, TidyStage):
            return self._tidy(request)
        return self._forget(request)

    def _answer_nothing(self, request: ListStaged | CommitStaged | DiscardStaged) -> StageAnswer:
        """Of a folder that no session has seen yet."""
        if isinstance(request, ListStaged):
            return StagedListed(id=request.id, changes=(), total=0, more=False)
        if isinstance(request, DiscardStaged):
            return StageDiscarded(id=request.id, discarded=0)
        return _tell(request.id, [_idle(path) for path in request.paths or ()])

    def _open(self, place: StagePlace) -> Stage:
        return Stage(place, xattr_prefix=self._prefix)

    def _prepare(self, request: PrepareStage) -> Prepared:
        fresh = make_stage(request.place, uid=request.uid, gid=request.gid, now=wait_for_tick)
        if has_intent(request.place.stage):
            with self._open(request.place) as stage:
                Commit(stage, overwrite=False, step=self._step).clear_unfinished()
        stage_fd = os.open(request.place.stage, DIRECTORY | os.O_CLOEXEC)
        try:
            return Prepared(id=request.id, needs_baseline=fresh, needs_tidying=find_trash(stage_fd))
        finally:
            os.close(stage_fd)

    def _take_baseline(self, request: TakeBaseline) -> BaselineTaken:
        with self._open(request.place) as stage:
            entries, complete = take_baseline(stage.source, stage.fd, began_ns=stage.about.began_ns, step=self._step)
        return BaselineTaken(id=request.id, entries=entries, complete=complete)

    def _list(self, request: ListStaged) -> StagedListed:
        with self._open(request.place) as stage:
            changes = find_changes(stage, Selection(None), self._step)
            pairs = find_renames(stage, changes, self._step)
            gone = frozenset(pairs.values())
            listed = [change for change in changes if change.path not in gone]
            behind = walk_key(request.after)
            rest = [change for change in listed if walk_key(change.path) > behind] if request.after else listed
            page: list[Staged] = []
            room = TEXT_LIMIT_BYTES
            for change in rest[: max(1, min(request.limit, PAGE_LIMIT))]:
                staged = self._describe(stage, change, pairs.get(change.path))
                room -= len(staged.path) + len(staged.before or b"") + len(staged.conflict or "")
                if room < 0 and page:
                    break
                page.append(staged)
        return StagedListed(id=request.id, changes=tuple(page), total=len(listed), more=len(page) < len(rest))

    def _describe(self, stage: Stage, change: Change, before: bytes | None) -> Staged:
        self._step(change.path)
        old_size = None if change.old is None else change.old.st_size
        try:
            conflict = conflict_of(stage, change)
            if conflict is None and before is not None:
                found = stage.source.look(before)
                conflict = None if found is None else conflict_of(stage, Change(path=before, new=None, old=found))
        except OSError as error:
            conflict = error.strerror or str(error)
        if change.new is None:
            assert change.old is not None
            inner = sum(1 for _ in stage.source.below(change.path)) if change.entry == "directory" else 0
            return Staged(
                path=change.path,
                kind="deleted",
                entry=change.entry,
                size=change.old.st_size,
                old_size=old_size,
                entries=inner,
                conflict=conflict,
            )
        return Staged(
            path=change.path,
            kind="renamed" if before is not None else "added" if change.old is None else "modified",
            entry=kind_of(change.new.st_mode),
            size=change.new.st_size,
            old_size=old_size,
            was=change.was,
            before=before,
            conflict=conflict,
        )

    def _diff(self, request: DiffStaged) -> StagedDiff | StageRefused:
        with self._open(request.place) as stage:
            changes = find_changes(stage, Selection((request.path,)), self._step)
            change = next((each for each in changes if each.path == request.path), None)
            if change is None:
                shown = request.path.decode("utf-8", "backslashreplace")
                return StageRefused(id=request.id, errno=None, message=f"{shown!r} has not changed", missing=True)
            try:
                return StagedDiff(id=request.id, diff=make_diff(stage, change))
            except NoDiff as error:
                return StagedDiff(id=request.id, diff=None, why=str(error))

    def _commit(self, request: CommitStaged) -> StageCommitted:
        with self._open(request.place) as stage:
            # First: what an interrupted one has left in the source is nothing that somebody has made there.
            Commit(stage, overwrite=False, step=self._step).clear_unfinished()
            changes, asked = self._chosen(stage, request.paths)
            if not request.overwrite and is_hollow(stage):
                return _tell(request.id, [_in_vain(stage, change) for change in changes])
            results = Commit(stage, overwrite=request.overwrite, step=self._step).run(changes)
            if request.paths is None:
                unsettled = [result.path for result in results if result.state != "committed"]
                unsettled += (change.path for change in changes if _is_written_since(stage, change))
            else:
                try:
                    unsettled = [change.path for change in find_changes(stage, Selection(None), self._step)]
                except TooManyChanges:  # what is settled is no change, and goes when it can be told from the others
                    return _tell(request.id, [*results, *(_idle(path) for path in asked)])
            clear_settled(stage, unsettled, self._step)
        results += [_idle(path) for path in asked]
        return _tell(request.id, results)

    def _chosen(self, stage: Stage, paths: Sequence[bytes] | None) -> tuple[list[Change], list[bytes]]:
        """The changes that `paths` mean, with the other ends of renames, and the paths that mean none."""
        if paths is None:
            return find_changes(stage, Selection(None), self._step), []
        try:
            pairs = find_renames(stage, find_changes(stage, Selection(None), self._step), self._step)
        except TooManyChanges:  # what is chosen is committed without the other ends of renames
            pairs = {}
        wanted = Selection(paths)
        more = [old for new, old in pairs.items() if wanted.has(new)] + [
            new for new, old in pairs.items() if wanted.has(old)
        ]
        changes = find_changes(stage, Selection((*paths, *more)), self._step) if paths else []
        idle = [path for path in paths if path and not any(Selection((path,)).has(each.path) for each in changes)]
        return changes, idle

    def _discard(self, request: DiscardStaged) -> StageDiscarded:
        with self._open(request.place) as stage:
            if request.paths is None:
                try:
                    discarded = len(find_changes(stage, Selection(None), self._step))
                except TooManyChanges:
                    discarded = CHANGE_LIMIT
                give_up_all(stage)
                return StageDiscarded(id=request.id, discarded=discarded)
            changes, _ = self._chosen(stage, request.paths)
            more = Selection(request.paths)
            pairs = find_renames(stage, changes, self._step)
            ends = {each for pair in pairs.items() for each in pair}
            meant = [change for change in changes if more.has(change.path) or change.path in ends]
            return StageDiscarded(id=request.id, discarded=give_up(stage, meant, self._step))

    def _tidy(self, request: TidyStage) -> StageForgotten:
        try:
            stage_fd = os.open(request.path, DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return StageForgotten(id=request.id, freed_bytes=0)
        try:
            empty_trash(stage_fd, self._step)
        finally:
            os.close(stage_fd)
        return StageForgotten(id=request.id, freed_bytes=0)

    def _forget(self, request: ForgetStage) -> StageForgotten:
        freed_bytes = 0
        for _ in range(_TIDIERS):
            try:
                freed_bytes += remove_tree(os.fsdecode(request.path))
                break
            except FileNotFoundError:  # another worker was tidying there, and took it first
                self._step(b"")
        return StageForgotten(id=request.id, freed_bytes=freed_bytes)


def _is_written_since(stage: Stage, change: Change) -> bool:
    """Whether the session's file is not what was committed any more: of a folder that was taken away in use, commands still have it."""
    if change.new is None or change.entry != "file":
        return False
    now = stage.upper.look(change.path)
    return now is not None and not is_untouched(change.new, now)


def _in_vain(stage: Stage, change: Change) -> PathResult:
    return PathResult(path=change.path, state="conflict", reason=conflict_of(stage, change) or HOLLOW)


def _idle(path: bytes) -> PathResult:
    return PathResult(path=path, state="skipped", reason="nothing has changed there")


def _tell(number: int, results: Iterable[PathResult]) -> StageCommitted:
    counts = {"committed": 0, "conflict": 0, "failed": 0, "skipped": 0}
    told = sorted(results, key=lambda result: (result.state == "committed", walk_key(result.path)))
    kept: list[PathResult] = []
    room = TEXT_LIMIT_BYTES
    for result in told:
        counts[result.state] += 1
        room -= len(result.path) + len(result.reason)
        if room >= 0 and len(kept) < RESULT_LIMIT:
            kept.append(result)
    return StageCommitted(
        id=number,
        committed=counts["committed"],
        conflicts=counts["conflict"],
        failed=counts["failed"] + counts["skipped"],
        results=tuple(kept),
        left_out=len(told) - len(kept),
    )
