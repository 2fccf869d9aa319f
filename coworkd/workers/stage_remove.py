"""Taking entries of a source away: what a session deleted, and what a commit was interrupted over.

Rules: bottom up, each entry looked at again right before it goes, nothing recursed, no link followed. A directory that somebody has put
something into meanwhile stays, with it; so does a file that was written to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from coworkd.system.remove_tree import remove_tree_at
from coworkd.workers.stage_entries import look, name_of, parent_of
from coworkd.workers.stage_tree import Tree

FILLED = "something was put into it meanwhile"


class Stays(Exception):
    """It may not go; the text says why."""


def remove_all(
    source: Tree,
    path: bytes,
    found: os.stat_result,
    *,
    may_go: Callable[[bytes, os.stat_result], str | None],
    gone: Callable[[bytes], None],
) -> None:
    """Remove the entry `path` of `source` with all in it; `may_go` gives the reason why one stays, `gone` is told of each that went.

    Raises `Stays` with what may go gone already below it, and `OSError`; the next call goes on from there.
    """
    inner = list(source.below(path)) if stat.S_ISDIR(found.st_mode) else []
    for each, seen in [*reversed(inner), (path, found)]:
        reason = may_go(each, seen)
        if reason is not None:
            raise Stays(reason)
        _remove(source, each, seen, may_go)
        gone(each)


def is_untouched(seen: os.stat_result, now: os.stat_result) -> bool:
    """Whether nothing was written in between. The ctime is not asked: another name of it may just have been taken away."""
    if (now.st_ino, stat.S_IFMT(now.st_mode)) != (seen.st_ino, stat.S_IFMT(seen.st_mode)):
        return False
    return stat.S_ISDIR(now.st_mode) or (now.st_size, now.st_mtime_ns) == (seen.st_size, seen.st_mtime_ns)


def _remove(
    source: Tree, path: bytes, seen: os.stat_result, may_go: Callable[[bytes, os.stat_result], str | None]
) -> None:
    directory = source.directory(parent_of(path))
    now = look(name_of(path), directory)
    if now is None:
        return
    if (now.st_ino, stat.S_IFMT(now.st_mode)) != (seen.st_ino, stat.S_IFMT(seen.st_mode)):
        raise Stays(FILLED)
    if not is_untouched(seen, now):
        reason = may_go(path, now)
        if reason is not None:
            raise Stays(reason)
    if not stat.S_ISDIR(now.st_mode):
        os.unlink(name_of(path), dir_fd=directory)
        return
    source.forget(path)
    try:
        os.rmdir(name_of(path), dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise Stays(FILLED) from error
        raise


def remove_unfinished(source: Tree, directories: Iterable[bytes] | None, prefix: bytes) -> int:
    """Remove what begins with `prefix` in `directories` of the source (None: in all of them); how many. Raises `OSError`."""
    removed = 0
    where = _all_directories(source, prefix) if directories is None else directories
    for path in where:
        try:
            names = source.names(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                continue
            raise
        for name in names:
            if name.startswith(prefix):
                remove_entry(source.directory(path), name)
                removed += 1
    return removed


def remove_entry(directory_fd: int, name: bytes) -> None:
    """Remove one name, with all that is in it where it is a directory. Raises `OSError`."""
    found = look(name, directory_fd)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        remove_tree_at(directory_fd, name)
    else:
        os.unlink(name, dir_fd=directory_fd)


def _all_directories(source: Tree, prefix: bytes) -> list[bytes]:
    inner = [path for path, found in source.below(b"") if stat.S_ISDIR(found.st_mode)]
    return [b"", *(path for path in inner if not any(part.startswith(prefix) for part in path.split(b"/")))]
