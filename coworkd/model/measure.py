"""The words between coworkd and its `measure` worker, which looks at sessions' trees on the session disk, prunes and re-owns them.

Rules
- A tree is named by a `root`, a directory of coworkd's own, and a `path` relative to it that is looked up without following any
  symbolic link, without leaving `root` and without crossing into another mount; so is everything below it.
- Every request has one answer with its `id`: its own, or `TreeFailed`. They are answered in order.
- Bytes are those on the disk, each inode once.
"""

from __future__ import annotations

from msgspec import Struct


class MeasureTree(Struct, frozen=True, kw_only=True, tag="measure_tree"):
    """How much it takes. Answered by `TreeMeasured`; a tree that is not there takes nothing."""

    id: int
    root: bytes
    path: bytes
    deadline_s: float
    """What is not looked at by then is left out, and `complete` is false."""


class PruneTree(Struct, frozen=True, kw_only=True, tag="prune_tree"):
    """Delete what lies in the directories `places`, which stay. Answered by `TreePruned`.

    Symbolic links are deleted, never followed; a place that is itself one is passed over. A directory goes when it is empty.
    """

    id: int
    root: bytes
    path: bytes
    places: tuple[bytes, ...]
    """Relative to the tree."""
    before: float = 0
    """Only files neither read nor changed since; 0: any."""
    larger_than_bytes: int = 0
    dry_run: bool = False
    entry_limit: int = 1000
    """How many entries are told; the others are counted."""
    deadline_s: float


class ReownTree(Struct, frozen=True, kw_only=True, tag="reown_tree"):
    """Give all that belongs to `uid_from` to `uid_to`, groups alike, the top last. Answered by `TreeReowned`."""

    id: int
    root: bytes
    path: bytes
    uid_from: int
    uid_to: int


class TreeMeasured(Struct, frozen=True, kw_only=True, tag="tree_measured"):
    id: int
    size_bytes: int
    files: int
    """Of every kind, directories among them, the top left out."""
    complete: bool


class PrunedEntry(Struct, frozen=True, kw_only=True, array_like=True):
    """`path` is relative to the tree; a directory that went whole is one entry."""

    path: bytes
    size_bytes: int
    files: int


class TreePruned(Struct, frozen=True, kw_only=True, tag="tree_pruned"):
    id: int
    size_bytes: int
    files: int
    entries: tuple[PrunedEntry, ...]
    left_out: int
    """How many entries are not told."""
    complete: bool


class TreeReowned(Struct, frozen=True, kw_only=True, tag="tree_reowned"):
    id: int
    changed: int


class TreeFailed(Struct, frozen=True, kw_only=True, tag="tree_failed"):
    id: int
    errno: int | None
    message: str


MeasureRequest = MeasureTree | PruneTree | ReownTree
MeasureAnswer = TreeMeasured | TreePruned | TreeReowned | TreeFailed
