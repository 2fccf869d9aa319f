"""Where no folder is. What mounts call otherwise is tried as root: tests/root/test_launcher_folder_faults.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coworkd.launcher.errand import ErrandError
from coworkd.launcher.folder_walls import refuse_walled


def judge(path: Path | str, *apart_from: Path) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        refuse_walled(fd, tuple(os.fsencode(own) for own in apart_from))
    finally:
        os.close(fd)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own" / "below").mkdir(parents=True)
    (tmp_path / "own2").mkdir()
    return tmp_path / "own"


@pytest.mark.parametrize("source", ["own", "own/below", "."])
def test_what_lies_in_our_own_or_holds_it_is_no_folder(own: Path, source: str) -> None:
    with pytest.raises(ErrandError, match="lie in each other") as caught:
        judge(own.parent / source, own.parent / "missing", own)
    assert caught.value.report.errno == errno.EPERM


def test_what_lies_beside_it_is_one(own: Path) -> None:
    judge(own.parent / "own2", own, own.parent / "missing")
    judge(own)


def test_a_link_is_not_our_own(own: Path) -> None:
    (own.parent / "link").symlink_to(own.parent / "own2")
    judge(own.parent / "own2", own.parent / "link")


@pytest.mark.parametrize("path", ["/proc", "/proc/self/fd", "/proc/self/status", "/sys"])
def test_the_kernels_own_file_systems_are_no_folders(path: str) -> None:
    with pytest.raises(ErrandError, match="kernel's own"):
        judge(path)
