from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.services.session_quota import ProjectQuota
from coworkd.system import quota


class Kernel:
    """Counts projects, as `system.quota` tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.projects: dict[int, int] = {}
        self.limits: dict[int, tuple[int, int]] = {}
        self.set = 0
        for name in ("get_project", "set_project", "set_limit", "get_use"):
            monkeypatch.setattr(quota, name, getattr(self, name))

    def get_project(self, fd: int) -> int:
        return self.projects.get(os.fstat(fd).st_ino, 0)

    def set_project(self, fd: int, project: int) -> None:
        self.set += 1
        self.projects[os.fstat(fd).st_ino] = project

    def set_limit(self, fd: int, project: int, *, limit_bytes: int, limit_inodes: int) -> None:
        self.limits[project] = (limit_bytes, limit_inodes)

    def get_use(self, fd: int, project: int) -> quota.ProjectUse:
        return quota.ProjectUse(bytes=7, inodes=project, limit_bytes=0, limit_inodes=0)


def test_a_directory_becomes_a_project_once_and_its_limit_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    made = ProjectQuota(str(tmp_path), is_there=lambda: True)
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "bob").mkdir()
    made.set_limit(str(tmp_path / "bob"), 1001, 0, 0)
    made.set_limit(str(tmp_path / "bob"), 1001, 4096, 10)
    assert kernel.projects == {(tmp_path / "bob").stat().st_ino: 1001}
    assert (kernel.set, kernel.limits) == (1, {1001: (4096, 10)})
    assert made.usage(1001) == (7, 1001)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_is_no_directory_of_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    (tmp_path / "bob").symlink_to("/etc")
    with pytest.raises(OSError, match=r"bob"):
        ProjectQuota(str(tmp_path), is_there=lambda: True).set_limit(str(tmp_path / "bob"), 1001, 1, 1)
    assert kernel.projects == {}


def test_what_the_disk_has_is_asked_each_time(tmp_path: Path) -> None:
    there = [True, False]
    made = ProjectQuota(str(tmp_path), is_there=there.pop)
    assert (made.kind, made.kind) == ("watched", "project")
