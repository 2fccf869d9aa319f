"""What stands against a change: the source is not as the session saw it any more. Only looks.

Rules
- What the baseline knows is compared with what is there now (`stage_entries.is_same`). What it does not know is in conflict where it was
  changed after the stage began, by its ctime; directories are judged by what is in them.
- Of a directory that goes, everything in it is judged: something that somebody has put there since is not deleted along.
- A directory that both have made is no conflict.
- A source that is empty and was not may be the place where a share is to be mounted: nothing is brought there unasked.
"""

from __future__ import annotations

import os
import stat

from coworkd.workers.stage_baseline import UNKNOWN
from coworkd.workers.stage_changes import Change
from coworkd.workers.stage_entries import ident_of, is_same
from coworkd.workers.stage_room import Stage

CHANGED = "it was changed in the folder meanwhile"
MADE = "it was made in the folder meanwhile"
DELETED = "it was deleted in the folder meanwhile"
HOLLOW = "the folder's source is empty and was not: is what is mounted there there?"


def is_hollow(stage: Stage) -> bool:
    """Whether the source has nothing at all any more of what it had, and not through commits of ours. Raises `OSError`."""
    if stage.source.names(b""):
        return False
    return any(stage.was(path) is not None for path in stage.baseline.paths())


def conflict_of(stage: Stage, change: Change) -> str | None:
    """Why `change` cannot be made without taking away somebody else's; None where it can. Raises `OSError`."""
    if change.old is None:
        was = stage.was(change.path)
        return DELETED if change.new is not None and was is not None and was != UNKNOWN else None
    if not stat.S_ISDIR(change.old.st_mode):
        return judge(stage, change.path, change.old)
    if change.new is not None and stat.S_ISDIR(change.new.st_mode):
        return None
    if stage.was(change.path) is None:
        return MADE
    for path, found in stage.source.below(change.path):
        reason = judge(stage, path, found)
        if reason is not None:
            inner = path[len(change.path) + 1 :].decode("utf-8", "backslashreplace")
            return f"{inner!r} in it: {reason}"
    return None


def judge(stage: Stage, path: bytes, found: os.stat_result) -> str | None:
    """Why the source's entry `found` is not the one that the session saw at `path`; None where it is."""
    was = stage.was(path)
    if was is None:
        return MADE
    if isinstance(was, str):
        if stat.S_ISDIR(found.st_mode):
            return None
        return CHANGED if found.st_ctime_ns > stage.about.began_ns else None
    return None if is_same(was, ident_of(found)) else CHANGED
