"""Projects as services see them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from coworkd.services.storage_quota import ProjectQuota
from coworkd.system import quota
from tests.unit.system.test_quota import FakeKernel


def test_a_disk_without_quota_is_watched(tmp_path: Path) -> None:
    counted = iter((False, True))
    made = ProjectQuota(str(tmp_path), is_counted=lambda: next(counted))
    assert [made.kind for _ in range(2)] == ["watched", "project"]


def test_a_limit_is_set_before_the_directory_belongs_to_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace: list[str] = []

    def quotactl(fd: int, command: int, project: int, record: ctypes.Array[ctypes.c_char]) -> int:
        trace.append(f"limit {project}")
        return 0

    monkeypatch.setattr(quota, "get_project", lambda _: 0)
    monkeypatch.setattr(quota, "set_project", lambda _, project: trace.append(f"project {project}"))
    made = ProjectQuota(str(tmp_path), is_counted=lambda: True, quotactl=quotactl)
    made.set_limit(str(tmp_path), 1001, 1 << 20, 10)
    assert trace == ["limit 1001", "project 1001"]


def test_a_directory_that_has_its_project_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "get_project", lambda _: 1001)
    monkeypatch.setattr(quota, "set_project", lambda *_: pytest.fail("it was set again"))
    ProjectQuota(str(tmp_path), is_counted=lambda: True, quotactl=FakeKernel()).set_limit(str(tmp_path), 1001, 0, 0)


def test_use_is_bytes_and_files(tmp_path: Path) -> None:
    kernel = FakeKernel((0, 0, 4096, 0, 0, 3, 0, 0))
    assert ProjectQuota(str(tmp_path), is_counted=lambda: True, quotactl=kernel).usage(1001) == (4096, 3)


def test_a_symbolic_link_gets_no_project(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError):
        ProjectQuota(str(tmp_path), is_counted=lambda: True, quotactl=FakeKernel()).set_limit(
            str(tmp_path / "link"), 1001, 0, 0
        )
