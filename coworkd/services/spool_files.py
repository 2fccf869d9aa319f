"""Spools on the session disk: a file that has no name, belongs to root, and counts as its session's.

Rules
- No session sees it: the directory is coworkd's own (0700), and the name is gone before anything is written.
- It is of the session's project, so what is kept counts where the kernel counts. Root is not held to quotas, so the bound is the
  spool's own, and what is free for others than root is looked at before anything is written (`spools_disk`): the reserve stays.
- What a crash left between making and unnaming a file is cleared at the first use.

Blocking but for `open`. Sources: open(2), unlink(2), statvfs(3), ioctl_xflags of ext4 (project).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import trio

from coworkd.model.errors import DiskFailed, LimitExceeded

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class SpoolFiles:
    """Makes the files, below `directory`."""

    def __init__(self, directory: Path, *, set_project: Callable[[int, int], None]) -> None:
        """`set_project` makes an open file one of a project, where the disk has projects; raises `OSError`."""
        self._directory = directory
        self._set_project = set_project
        self._cleared = False

    async def open(self, project: int, count: int, limit_bytes: int) -> list[int]:
        """`count` empty files that each may grow to `limit_bytes`; the caller closes them.

        Raises `LimitExceeded` where the disk has not as much to give, `DiskFailed` where it fails.
        """
        try:
            return await trio.to_thread.run_sync(self._open_all, project, count, limit_bytes)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LimitExceeded(
                    f"the session disk has no room to keep {count} times {limit_bytes} bytes of output; ask for less, or keep it"
                    " in memory",
                    stage="spool",
                    errno=error.errno,
                ) from error
            raise DiskFailed(
                f"output cannot be kept on the session disk: {error.strerror}; see: coworkctl doctor",
                errno=error.errno,
                path=str(self._directory),
            ) from error

    def _open_all(self, project: int, count: int, limit_bytes: int) -> list[int]:
        self._prepare()
        if free_bytes(str(self._directory)) < count * limit_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        made: list[int] = []
        try:
            for _ in range(count):
                made.append(self._open_one(project))
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        return made

    def _open_one(self, project: int) -> int:
        path = self._directory / secrets.token_hex(8)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(path)
            self._set_project(fd, project)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _prepare(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if not self._cleared:
            for left in self._directory.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    left.unlink()
            self._cleared = True


def free_bytes(where: str | int) -> int:
    """What others than root may still write there."""
    found = os.statvfs(where)
    return found.f_bavail * found.f_frsize
