"""What a recursive delete would take: the answer to `ListBelow`."""

from __future__ import annotations

import os

from coworkd.model.folder import ListBelow, Listed

LIMIT = 10_000
"""Whatever is asked for: the folder waits meanwhile."""
LIMIT_BYTES = 4 * 1024 * 1024
"""Of all paths together: half of what a message may have."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 256


def list_below(source_fd: int, asked: ListBelow) -> Listed:
    """All paths below `asked.path`, depth first, a directory after what is in it, as rm(1) would go; what cannot be read is passed over."""
    limit = max(0, min(asked.limit, LIMIT))
    found = _Found(limit)
    try:
        fd = os.open(b".", _DIRECTORY, dir_fd=source_fd)
        for name in asked.path.split(b"/") if asked.path else ():
            if name in (b"", b".", b".."):
                os.close(fd)
                return Listed(id=asked.id, paths=(), more=False)
            below, fd = fd, -1
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=below)
            finally:
                os.close(below)
    except OSError:
        return Listed(id=asked.id, paths=(), more=False)
    _walk(fd, asked.path, found, 0)
    return Listed(id=asked.id, paths=tuple(found.paths), more=found.more)


class _Found:
    """What there is room for."""

    def __init__(self, limit: int) -> None:
        self.paths: list[bytes] = []
        self.more = False
        self._limit = limit
        self._left_bytes = LIMIT_BYTES

    def add(self, path: bytes) -> None:
        self._left_bytes -= len(path)
        if len(self.paths) >= self._limit or self._left_bytes < 0:
            self.more = True
        else:
            self.paths.append(path)


def _walk(fd: int, path: bytes, found: _Found, depth: int) -> None:
    """Add what lies in `fd`, which is closed here."""
    try:
        with os.scandir(fd) as entries:
            for each in entries:
                if found.more:
                    return
                name = os.fsencode(each.name)
                full = path + b"/" + name if path else name
                if each.is_dir(follow_symlinks=False) and depth < _DEPTH:
                    try:
                        below = os.open(name, _DIRECTORY, dir_fd=fd)
                    except OSError:
                        pass
                    else:
                        _walk(below, full, found, depth + 1)
                if not found.more:
                    found.add(full)
    except OSError:
        return
    finally:
        os.close(fd)
