"""May a bridge touch a unix socket at this path? coworkd is root, so the way there must be nobody else's to change.

Rules
- No directory on the way, links followed, is one that a session could put something else into: owned by a session's uid, writable
  for a session's group, or for all without the sticky bit.
- Nothing leads to coworkd's own sockets: whoever connected would have the host's power.

It blocks: call it in a thread. Not here: who may connect to what is listened on. Sources: path_resolution(7), unix(7), inode(7).
"""

from __future__ import annotations

import os
import stat

from coworkd.model.errors import InvalidState, PolicyDenied
from coworkd.model.uids import MAX_UID, MIN_UID


def check_path(path: str, *, own: tuple[str, ...]) -> None:
    """Raise `PolicyDenied` where a bridge may not, `InvalidState` where the directory is not there."""
    try:
        real = os.path.realpath(path)
        for directory in _way_to(os.path.dirname(real)):
            _check_directory(path, directory)
    except OSError as error:
        raise InvalidState(
            f"{path}: {error.filename or 'its directory'} cannot be looked at: {error.strerror}",
            path=path,
            errno=error.errno,
        ) from error
    if any(_same(real, each) for each in own):
        raise PolicyDenied(
            f"{path} is a socket of coworkd's own: a bridge to it would give away the host's power", path=path
        )


def _way_to(directory: str) -> list[str]:
    way = ["/"]
    for part in directory.split("/"):
        if part:
            way.append(os.path.join(way[-1], part))
    return way


def _check_directory(path: str, directory: str) -> None:
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidState(f"{path}: {directory} is no directory", path=path)
    open_to_all = bool(found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if _of_session(found.st_uid) or open_to_all or (found.st_mode & stat.S_IWGRP and _of_session(found.st_gid)):
        raise PolicyDenied(
            f"{path}: others can change {directory}, and so lead the bridge elsewhere; choose a path below a directory that only "
            "root can write, such as /run",
            path=path,
        )


def _of_session(number: int) -> bool:
    return MIN_UID <= number <= MAX_UID and number not in (os.geteuid(), os.getegid())


def _same(path: str, other: str) -> bool:
    if path == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
