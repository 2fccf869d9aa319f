"""The shapes of `storage.*` and of what sessions use of the disk: `session.usage`, `session.prune`, `session.retention`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Mutating, Params
from coworkd.model.limits import GroupUsage
from coworkd.model.names import OsBytes

StorageKind = Literal["disk", "loop", "directory"]
StorageState = Literal["ok", "degraded", "absent"]
PruneWhat = Literal["caches", "tmp", "stages"]


class StorageUsage(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """The session disk. `reserved_bytes` are coworkd's own: no session gets them."""

    kind: StorageKind
    state: StorageState
    reason: str | None
    path: str
    device: str | None
    size_bytes: int
    used_bytes: int
    free_bytes: int
    reserved_bytes: int
    inodes: int
    inodes_free: int
    quota: Literal["project", "watched"]
    """Whether the kernel keeps sessions to their limit, or coworkd looks now and then."""
    pressure: int
    """0, 80, 90 or 95: the mark in percent that is passed."""


class StorageTrim(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class StorageTrimmed(Answer, frozen=True, kw_only=True):
    trimmed_bytes: int


class StorageGrow(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Make the file system as large as its device is; a loop file grows to `size` first."""

    size: int | None = None


class StorageGrown(Answer, frozen=True, kw_only=True):
    before_bytes: int
    after_bytes: int


class SessionUsageParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str | None = None
    """None: of all sessions."""


class SessionUsage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    session: str
    home_bytes: int
    stage_bytes: int
    files: int
    complete: bool = True
    """False where there was no time to look at all of it: it takes at least as much."""
    limit_bytes: int
    """0: none."""
    measured_at: float
    idle_since: float
    """When a command last ran in it, or it was made."""
    group: GroupUsage | None = None
    """What its commands take of memory, processors and disks, and have taken since it was opened; None where it is not open."""


class SessionUsages(Answer, frozen=True, kw_only=True):
    sessions: tuple[SessionUsage, ...]


class SessionPrune(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Delete what can be had again. `session` None: of all. Nothing is deleted with `dry_run`, which answers the same."""

    session: str | None = None
    what: tuple[PruneWhat, ...] = ("caches", "tmp")
    older_than_s: float = 0
    larger_than_bytes: int = 0
    dry_run: bool = False


class Pruned(Struct, frozen=True, kw_only=True):
    session: str
    path: OsBytes
    bytes: int
    files: int


class SessionPruned(Answer, frozen=True, kw_only=True):
    freed_bytes: int
    files: int
    entries: tuple[Pruned, ...]
    left_out: int = 0


class SessionRetention(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Apply the retention policy of the configuration now, or say what it would delete."""

    dry_run: bool = True


class RetentionEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    session: str
    reason: str
    bytes: int
    deleted: bool = False
    goes_at: float | None = None
    """It is announced, and goes then, if the policy still names it."""


class SessionRetained(Answer, frozen=True, kw_only=True):
    entries: tuple[RetentionEntry, ...]
