"""The words between coworkd and its `stage` workers: what a staged folder holds back, and what becomes of it.

A stage is one directory of the session disk, `STATE/stages/SESSION/FOLDER/DIGEST`, root's alone down to it; the digest is of its source,
and a folder that is unmounted keeps its stage for the next time:

    upper/      what the session changed, as overlayfs keeps it: the session's own files, whiteouts, opaque directories
    work/       overlayfs's own
    about       which stage this is, and since when it holds changes
    baseline    what each entry of the source was then
    since       what has become of single entries of the source through commits of ours
    trash.*     what commits and discards took out of `upper`, about to be removed
    intent      which directories of the source a commit may have left unfinished files in

Rules
- One request, one answer of the same id. `Progress` comes unasked in between, at most once a second, and says that it is not stuck.
- Paths are relative to the folder, bytes; lists are sorted as a walk goes, a directory before what lies in it.
- `Commit` and `Discard` come only while nobody sees the overlay: what lies under a mounted one may not change (kernel:
  filesystems/overlayfs, "Changes to underlying filesystems").
- A worker that ends in the middle leaves each path of the source old or new; the same request again goes on from there.
"""

from __future__ import annotations

from msgspec import Struct

from coworkd.model.calls_folders import CommitState, EntryKind, StagedKind

UNFINISHED_PREFIX = b".coworkd-commit-"
"""How the names of files begin that a commit is about to put in place."""


class StagePlace(Struct, frozen=True, kw_only=True, array_like=True):
    """A stage and what it belongs to; `root` and `source` as in `launch.MountFolder`."""

    stage: bytes
    root: bytes
    source: bytes


class PrepareStage(Struct, frozen=True, kw_only=True, tag="prepare"):
    """Make the stage where it is missing, and see whether it needs a new baseline."""

    id: int
    place: StagePlace
    uid: int
    gid: int


class TakeBaseline(Struct, frozen=True, kw_only=True, tag="take_baseline"):
    """Look at every entry of the source, and clear what an interrupted commit has left in it. The overlay may be mounted meanwhile."""

    id: int
    place: StagePlace


class ListStaged(Struct, frozen=True, kw_only=True, tag="list"):
    """Changes behind `after`, at most `limit`."""

    id: int
    place: StagePlace
    after: bytes = b""
    limit: int = 1000


class DiffStaged(Struct, frozen=True, kw_only=True, tag="diff"):
    id: int
    place: StagePlace
    path: bytes


class CommitStaged(Struct, frozen=True, kw_only=True, tag="commit"):
    id: int
    place: StagePlace
    paths: tuple[bytes, ...] | None
    overwrite: bool


class DiscardStaged(Struct, frozen=True, kw_only=True, tag="discard"):
    id: int
    place: StagePlace
    paths: tuple[bytes, ...] | None


class TidyStage(Struct, frozen=True, kw_only=True, tag="tidy"):
    """Remove what commits and discards have put aside. The overlay may be mounted meanwhile. Answered by `StageForgotten`."""

    id: int
    path: bytes


class ForgetStage(Struct, frozen=True, kw_only=True, tag="forget"):
    """Remove the directory `path` (of one stage, or of all of a session) with all it holds; one that is gone is done."""

    id: int
    path: bytes


ToStage = PrepareStage | TakeBaseline | ListStaged | DiffStaged | CommitStaged | DiscardStaged | TidyStage | ForgetStage


class Prepared(Struct, frozen=True, kw_only=True, tag="prepared"):
    """The stage is there. `needs_baseline`: it holds no changes, so that now is the time for `TakeBaseline`."""

    id: int
    needs_baseline: bool
    needs_tidying: bool = False


class BaselineTaken(Struct, frozen=True, kw_only=True, tag="baseline_taken"):
    """`complete` is false where the source holds more than is kept: changes of what is left out are judged by their time."""

    id: int
    entries: int
    complete: bool


class Staged(Struct, frozen=True, kw_only=True, array_like=True):
    """One change. See `calls_folders.StagedChange`."""

    path: bytes
    kind: StagedKind
    entry: EntryKind
    size: int
    old_size: int | None = None
    was: EntryKind | None = None
    before: bytes | None = None
    entries: int = 0
    conflict: str | None = None


class StagedListed(Struct, frozen=True, kw_only=True, tag="listed"):
    id: int
    changes: tuple[Staged, ...]
    total: int
    more: bool


class StagedDiff(Struct, frozen=True, kw_only=True, tag="diffed"):
    """`diff` is None where there is none to show; `why` says so."""

    id: int
    diff: bytes | None
    why: str = ""


class PathResult(Struct, frozen=True, kw_only=True, array_like=True):
    path: bytes
    state: CommitState
    reason: str = ""


class StageCommitted(Struct, frozen=True, kw_only=True, tag="committed"):
    """`results` has those that were not committed first."""

    id: int
    committed: int
    conflicts: int
    failed: int
    results: tuple[PathResult, ...]
    left_out: int


class StageDiscarded(Struct, frozen=True, kw_only=True, tag="discarded"):
    id: int
    discarded: int


class StageForgotten(Struct, frozen=True, kw_only=True, tag="forgotten"):
    id: int
    freed_bytes: int


class StageRefused(Struct, frozen=True, kw_only=True, tag="refused"):
    """It was not done; a commit may have been done in part. `missing` is true where the path named is no change."""

    id: int
    errno: int | None
    message: str
    missing: bool = False


class Progress(Struct, frozen=True, kw_only=True, tag="progress"):
    """So many steps have been done."""

    steps: int


StageAnswer = (
    Prepared
    | BaselineTaken
    | StagedListed
    | StagedDiff
    | StageCommitted
    | StageDiscarded
    | StageForgotten
    | StageRefused
)
FromStage = (
    Prepared
    | BaselineTaken
    | StagedListed
    | StagedDiff
    | StageCommitted
    | StageDiscarded
    | StageForgotten
    | StageRefused
    | Progress
)
