"""Removing a directory whose content somebody else has made: however deep it goes, and never through a symbolic link.

Rules
- Everything is named relative to a held descriptor, so no path is ever too long and none leads elsewhere.
- What is mounted in it is not entered: it is EXDEV, and stays.
- At most `_DEPTH_LIMIT` directories are open at once: what lies deeper is first moved up to the top. shutil.rmtree and os.walk
  recurse instead, and a directory of a thousand levels ends them with a RecursionError.

Sources: unlinkat(2), renameat(2), openat2(2).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator

from coworkd.system.beneath import DIRECTORY, open_beneath

_DEPTH_LIMIT = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> int:
    """Remove the directory `path` with all below it; the bytes its files took on disk. One that is gone took none.

    Nobody may be writing there meanwhile. Raises `OSError` for what cannot be removed; the next call goes on from there.
    """
    return _remove(path, None)


def remove_tree_at(directory_fd: int, name: bytes) -> int:
    """The same for the directory `name` in an open one."""
    return _remove(name, directory_fd)


def _remove(name: str | bytes, directory_fd: int | None) -> int:
    try:
        top = os.open(name, _DIRECTORY, dir_fd=directory_fd)
    except FileNotFoundError:
        return 0
    try:
        freed_bytes = _empty(top, top, _fresh_names(), 0)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=directory_fd)
    return freed_bytes


def _empty(directory: int, top: int, fresh_names: Iterator[str], depth: int) -> int:
    """Remove all that is in `directory`, or move it up to `top`."""
    freed_bytes = 0
    found = True
    while found:  # a scan may miss an entry when others are removed under it, and what was moved up
        found = False
        with os.scandir(directory) as entries:
            for entry in entries:
                found = True
                freed_bytes += _remove_entry(entry, directory, top, fresh_names, depth)
    return freed_bytes


def _remove_entry(entry: os.DirEntry[str], directory: int, top: int, fresh_names: Iterator[str], depth: int) -> int:
    if not entry.is_dir(follow_symlinks=False):
        freed_bytes = entry.stat(follow_symlinks=False).st_blocks * 512
        os.unlink(entry.name, dir_fd=directory)
        return freed_bytes
    if depth == _DEPTH_LIMIT:
        os.rename(entry.name, next(fresh_names), src_dir_fd=directory, dst_dir_fd=top)
        return 0
    child = _open_inner(entry.name, directory)
    try:
        freed_bytes = _empty(child, top, fresh_names, depth + 1)
    finally:
        os.close(child)
    os.rmdir(entry.name, dir_fd=directory)
    return freed_bytes


def _open_inner(name: str, directory: int) -> int:
    try:
        return open_beneath(directory, os.fsencode(name), DIRECTORY, one_mount=True)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise OSError(errno.EXDEV, "another file system is mounted in it", name) from error


def _fresh_names() -> Iterator[str]:
    """Names that nothing can have had before."""
    mark = secrets.token_hex(8)
    number = 0
    while True:
        number += 1
        yield f".removing-{mark}-{number}"
