"""The shapes of `folder.*` and `approval.*`. Paths below a folder are relative to it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Mutating, Params
from coworkd.model.folder import MountedAs
from coworkd.model.names import OsBytes
from coworkd.model.policy import FolderMode

StagedKind = Literal["added", "modified", "deleted", "renamed"]
EntryKind = Literal["file", "directory", "symlink", "other"]
CommitState = Literal["committed", "conflict", "failed", "skipped"]


class FolderMount(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    name: str
    source: str
    mode: FolderMode
    required: bool = True


class FolderUnmount(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    name: str


class FolderSetMode(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    name: str
    mode: FolderMode


class FolderList(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str


class FolderInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One folder of a session. `state` is `closed` while the session's namespaces are not open."""

    name: str
    source: str
    mode: FolderMode
    required: bool
    state: Literal["mounted", "failed", "closed"]
    path: str
    """Where the session sees it."""
    mounted_as: MountedAs | None = None
    error: str | None = None
    degraded: tuple[str, ...] = ()


class FolderAnswer(Answer, frozen=True, kw_only=True):
    folder: FolderInfo


class FolderUnmounted(Answer, frozen=True, kw_only=True):
    busy: bool
    """It is in use, and goes when its last user does."""
    leftovers: tuple[str, ...] = ()


class Folders(Answer, frozen=True, kw_only=True):
    folders: tuple[FolderInfo, ...]


# -- staged folders -----------------------------------------------------------------------------------------------


class FolderChanges(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`after` is the last path of the page before; `diff` asks for a text diff of one path."""

    session: str
    name: str
    after: OsBytes = OsBytes(b"")
    limit: int = 1000
    diff: OsBytes | None = None


class StagedChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change that is held back. `size` is the new one in bytes, of a deleted entry the old one."""

    path: OsBytes
    kind: StagedKind
    entry: EntryKind
    size: int
    old_size: int | None = None
    was: EntryKind | None = None
    """What stood there, where it was of another kind."""
    before: OsBytes | None = None
    """Of `renamed`: where it was."""
    entries: int = 0
    """Of a directory that is deleted: how many entries go with it."""
    conflict: str | None = None
    """Why it cannot be committed as it is: what changed in the source meanwhile."""


class StagedChanges(Answer, frozen=True, kw_only=True):
    changes: tuple[StagedChange, ...]
    total: int
    more: bool
    diff: OsBytes | None = None
    """A unified diff; None where none was asked for, or the file is no text or too large."""


class FolderCommit(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All, or `paths` and what lies below them. With `overwrite` the source's own changes since then are lost."""

    session: str
    name: str
    paths: tuple[OsBytes, ...] | None = None
    overwrite: bool = False


class CommitResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    path: OsBytes
    state: CommitState
    reason: str = ""


class FolderCommitted(Answer, frozen=True, kw_only=True):
    """`results` holds every path that was not committed, and those that were as far as a message takes them."""

    committed: int
    conflicts: int
    failed: int
    results: tuple[CommitResult, ...]
    left_out: int = 0


class FolderDiscard(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    name: str
    paths: tuple[OsBytes, ...] | None = None


class FolderDiscarded(Answer, frozen=True, kw_only=True):
    discarded: int


# -- approvals ----------------------------------------------------------------------------------------------------


class ApprovalList(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str | None = None


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question that waits for a person: deletes of one command in one folder.

    `paths` are those that wait now and, of rm and its like, what the same command is about to delete; `count` is how many there are,
    also those a message does not take. The list may grow: `revision` says which state of it this is.
    """

    approval: str
    session: str
    process: str | None
    folder: str
    action: Literal["delete"]
    paths: tuple[OsBytes, ...]
    count: int
    waiting: int
    asked_at: float
    expires_at: float
    revision: int
    more: bool = False
    """There are more than were counted, below `trees`."""
    trees: tuple[OsBytes, ...] = ()
    """Directories that the command deletes with all that lies below them."""
    command: tuple[OsBytes, ...] = ()


class Approvals(Answer, frozen=True, kw_only=True):
    approvals: tuple[Approval, ...]


class ApprovalAnswer(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`once`: what the list names, by that command. `session`: every delete in this folder by this session, until it is mounted anew."""

    approval: str
    answer: Literal["once", "session", "deny"]
    revision: int | None = None
    """What was seen: `once` allows nothing that came later. Without it all that was told so far."""


class ApprovalAnswered(Answer, frozen=True, kw_only=True):
    count: int
    """How many deletes that waited were answered by it."""
