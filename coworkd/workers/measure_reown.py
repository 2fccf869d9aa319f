"""Giving a tree to another uid: a session whose number somebody else has on this root file system gets a new one, with its home.

Each entry is judged and given by one descriptor (O_PATH), so what is swapped in between is not touched; what belongs to neither
uid stays as it is. Run again after a crash, it goes on with what is left. The kernel takes set-id bits off on the way (chown(2)).
"""

from __future__ import annotations

import os

from coworkd.model.measure import ReownTree, TreeReowned
from coworkd.system.ownership import give
from coworkd.workers.measure_walk import Walk, open_top


def reown(request: ReownTree) -> TreeReowned:
    """Raises `OSError` for what a disk refuses."""
    changed = 0
    top = open_top(request.root, request.path)
    if top is not None:
        try:
            device = os.fstat(top).st_dev
            for entry in Walk(top):
                if entry.stat.st_dev == device:
                    changed += _reown_entry(entry.directory, entry.name, request)
            changed += _reown_fd(top, request)
        finally:
            os.close(top)
    return TreeReowned(id=request.id, changed=changed)


def _reown_entry(directory: int, name: str, request: ReownTree) -> bool:
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return False
    try:
        return _reown_fd(fd, request)
    finally:
        os.close(fd)


def _reown_fd(fd: int, request: ReownTree) -> bool:
    found = os.fstat(fd)
    uid = request.uid_to if found.st_uid == request.uid_from else found.st_uid
    gid = request.uid_to if found.st_gid == request.uid_from else found.st_gid
    if (uid, gid) == (found.st_uid, found.st_gid):
        return False
    give(fd, uid, gid)
    return True
