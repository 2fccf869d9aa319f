"""How the kernel keeps sessions to their part of the disk: project quota, the project's number being the session's uid.

Implements `ports.QuotaPort`. Blocking; whether the disk has it is the storage service's to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

from coworkd.system import quota

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ProjectQuota:
    """Of the file system that `directory` lies on."""

    def __init__(self, directory: str, *, is_there: Callable[[], bool]) -> None:
        self._directory = directory
        self._is_there = is_there

    @property
    def kind(self) -> Literal["project", "watched"]:
        """See `ports.QuotaPort`."""
        return "project" if self._is_there() else "watched"

    def set_limit(self, path: str, project: int, limit_bytes: int, limit_files: int) -> None:
        """See `ports.QuotaPort`. Raises `OSError`."""
        fd = os.open(path, _DIRECTORY)
        try:
            if quota.get_project(fd) != project:
                quota.set_project(fd, project)
            quota.set_limit(fd, project, limit_bytes=limit_bytes, limit_inodes=limit_files)
        finally:
            os.close(fd)

    def usage(self, project: int) -> tuple[int, int]:
        """See `ports.QuotaPort`. Raises `OSError`."""
        fd = os.open(self._directory, _DIRECTORY)
        try:
            used = quota.get_use(fd, project)
        finally:
            os.close(fd)
        return used.bytes, used.inodes
