"""What a tree takes on its disk: blocks, each inode once.

A file of several names counts in equal parts at each of them: the sum is the same, and no list of what was seen has to be kept.
"""

from __future__ import annotations

import os
import time

from coworkd.model.measure import MeasureTree, TreeMeasured
from coworkd.workers.measure_walk import Walk, open_top

_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system's own is (stat(2))."""


def measure(request: MeasureTree) -> TreeMeasured:
    """Raises `OSError` for what a disk refuses."""
    top = open_top(request.root, request.path)
    if top is None:
        return TreeMeasured(id=request.id, size_bytes=0, files=0, complete=True)
    try:
        walk = Walk(top, deadline=time.monotonic() + request.deadline_s)
        size = float(os.fstat(top).st_blocks * _BLOCK_BYTES)
        files = 0.0
        for entry in walk:
            if entry.read:
                size += bytes_of(entry.stat)
                files += share_of(entry.stat)
    finally:
        os.close(top)
    return TreeMeasured(id=request.id, size_bytes=round(size), files=round(files), complete=walk.complete)


def share_of(found: os.stat_result) -> float:
    """The part of an inode that this name of it counts for; a directory's links are its children's."""
    return 1.0 if found.st_nlink <= 1 or _is_directory(found) else 1 / found.st_nlink


def bytes_of(found: os.stat_result) -> float:
    """What goes with this name, as far as it goes."""
    return found.st_blocks * _BLOCK_BYTES * share_of(found)


def _is_directory(found: os.stat_result) -> bool:
    return (found.st_mode & 0o170000) == 0o040000
