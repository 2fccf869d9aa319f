"""`services.spool_files`: files without a name, of their project, and a disk that has not the room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed, LimitExceeded
from coworkd.services import spool_files
from coworkd.services.spool_files import SpoolFiles
from tests.unit.services.process_house import in_trio, open_fds


@in_trio
async def test_a_file_has_no_name_and_is_its_projects(tmp_path: Path) -> None:
    projects: list[tuple[int, int]] = []
    files = SpoolFiles(tmp_path / "spools", set_project=lambda fd, project: projects.append((fd, project)))
    made = await files.open(1001, 2, 4096)
    assert projects == [(fd, 1001) for fd in made]
    assert (tmp_path / "spools").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "spools").iterdir()) == []
    for fd in made:
        assert os.fstat(fd).st_nlink == 0
        os.close(fd)


@in_trio
async def test_what_a_crash_left_is_cleared_at_the_first_use(tmp_path: Path) -> None:
    (tmp_path / "left").write_bytes(b"x")
    for fd in await SpoolFiles(tmp_path, set_project=lambda fd, project: None).open(1001, 1, 4096):
        os.close(fd)
    assert list(tmp_path.iterdir()) == []


@in_trio
async def test_a_disk_without_the_room_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_files, "free_bytes", lambda where: 8191)
    before = open_fds()
    with pytest.raises(LimitExceeded, match="no room") as caught:
        await SpoolFiles(tmp_path, set_project=lambda fd, project: None).open(1001, 2, 4096)
    assert caught.value.details["errno"] == errno.ENOSPC
    assert open_fds() == before


@in_trio
async def test_a_disk_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def refuse(fd: int, project: int) -> None:
        if project_calls.append(fd) or len(project_calls) == 2:  # type: ignore[func-returns-value]
            raise OSError(errno.EIO, "Input/output error")

    project_calls: list[int] = []
    before = open_fds()
    with pytest.raises(DiskFailed, match="Input/output error"):
        await SpoolFiles(tmp_path, set_project=refuse).open(1001, 2, 4096)
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == []
