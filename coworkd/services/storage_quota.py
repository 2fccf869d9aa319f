"""How the kernel keeps sessions to their part of the session disk: implements `ports.QuotaPort`.

A project's number is its session's uid. Limits are set on the file system of the directory itself, so nothing here knows of devices.
Blocking. Sources: quotactl(2), `system.quota`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

from coworkd.system import quota


class ProjectQuota:
    """The projects of the file system that `path` lies on."""

    def __init__(
        self, path: str, *, is_counted: Callable[[], bool], quotactl: quota.Quotactl = quota.quotactl_fd
    ) -> None:
        """`is_counted` says whether the disk was mounted with project quota."""
        self._path = path
        self._is_counted = is_counted
        self._quotactl = quotactl

    @property
    def kind(self) -> Literal["project", "watched"]:
        return "project" if self._is_counted() else "watched"

    def set_limit(self, path: str, project: int, limit_bytes: int, limit_files: int) -> None:
        """See `ports.QuotaPort`. The limit first: what is made in between is bounded already."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            quota.set_limit(fd, project, limit_bytes=limit_bytes, limit_inodes=limit_files, quotactl=self._quotactl)
            if quota.get_project(fd) != project:
                quota.set_project(fd, project)
        finally:
            os.close(fd)

    def set_project(self, fd: int, project: int) -> None:
        """Make an open file one of `project`, where the disk counts. Raises `OSError`."""
        if self._is_counted():
            quota.set_project(fd, project)

    def usage(self, project: int) -> tuple[int, int]:
        """See `ports.QuotaPort`."""
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            used = quota.get_use(fd, project, quotactl=self._quotactl)
        finally:
            os.close(fd)
        return used.bytes, used.inodes
