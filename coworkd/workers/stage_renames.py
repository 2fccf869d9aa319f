"""Renames among changes: what is gone in one place and is there, with the same content, in another. A guess, for people who look.

Rules: plain files that are not empty, of the same size and hash; each end in one pair at most, the same name first. At most
`HASH_BYTES` are read for it; what is more is told as deleted and added. Nothing is committed differently because of it, but that
a commit or discard of one end takes the other along.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable

from coworkd.workers.stage_changes import Change
from coworkd.workers.stage_compare import content_hash
from coworkd.workers.stage_entries import name_of
from coworkd.workers.stage_room import Stage
from coworkd.workers.stage_tree import Tree

HASH_BYTES = 256 * 1024 * 1024


def find_renames(
    stage: Stage, changes: list[Change], step: Callable[[bytes], None], limit_bytes: int = HASH_BYTES
) -> dict[bytes, bytes]:
    """New path → old path. What cannot be read is in no pair."""
    gone, made = _candidates(changes)
    pairs: dict[bytes, bytes] = {}
    left = limit_bytes
    for size in sorted(gone.keys() & made.keys()):
        cost = size * (len(gone[size]) + len(made[size]))
        if cost > left:
            break
        left -= cost
        old_by_hash: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for path in gone[size]:
            summed = _hash(stage.source, path, size, step)
            if summed is not None:
                old_by_hash[summed].append(path)
        for path in made[size]:
            summed = _hash(stage.upper, path, size, step)
            old = old_by_hash.get(summed) if summed is not None else None
            if old:
                pairs[path] = old.pop(next((n for n, each in enumerate(old) if name_of(each) == name_of(path)), 0))
    return pairs


def _candidates(changes: list[Change]) -> tuple[dict[int, list[bytes]], dict[int, list[bytes]]]:
    """Paths of files that are gone, and of those that are new, by their size."""
    gone: defaultdict[int, list[bytes]] = defaultdict(list)
    made: defaultdict[int, list[bytes]] = defaultdict(list)
    for change in changes:
        if change.new is None and change.old is not None and _is_full(change.old):
            gone[change.old.st_size].append(change.path)
        elif change.old is None and change.new is not None and _is_full(change.new):
            made[change.new.st_size].append(change.path)
    return gone, made


def _is_full(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _hash(tree: Tree, path: bytes, size: int, step: Callable[[bytes], None]) -> bytes | None:
    step(path)
    try:
        fd = tree.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return content_hash(fd, size, step)
    except OSError:
        return None
    finally:
        os.close(fd)
