from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from coworkd.services import session_skeleton
from coworkd.services.session_skeleton import SkeletonRefused, copy_skeleton


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    made = tmp_path / "skel"
    (made / ".config/deep").mkdir(parents=True)
    (made / ".config/deep/file").write_text("text")
    (made / ".profile").write_bytes(bytes(range(256)) * 3000)
    (made / "run").write_text("#!/bin/sh\n")
    (made / "run").chmod(0o6755)
    (made / "link").symlink_to("/etc/shadow")
    os.mkfifo(made / "fifo")
    return made


def copied(skeleton: Path, home: Path) -> Path:
    home.mkdir()
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        copy_skeleton(str(skeleton), fd, os.geteuid())
    finally:
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(fd)
    return home


def test_a_home_begins_with_what_lies_in_the_skeleton(skeleton: Path, tmp_path: Path) -> None:
    home = copied(skeleton, tmp_path / "home")
    assert (home / ".config/deep/file").read_text() == "text"
    assert (home / ".profile").read_bytes() == bytes(range(256)) * 3000
    assert os.readlink(home / "link") == "/etc/shadow"
    assert not (home / "fifo").exists()


def test_no_set_id_bit_comes_along(skeleton: Path, tmp_path: Path) -> None:
    home = copied(skeleton, tmp_path / "home")
    assert stat.S_IMODE((home / "run").stat().st_mode) == 0o755


@pytest.mark.parametrize("bound", ["ENTRIES_LIMIT", "BYTES_LIMIT", "_DEPTH_LIMIT"])
def test_a_skeleton_beyond_the_bounds_is_refused(
    skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(session_skeleton, bound, 1)
    with pytest.raises(SkeletonRefused) as caught:
        copied(skeleton, tmp_path / "home")
    assert caught.value.errno == errno.EFBIG


def test_a_skeleton_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copied(tmp_path / "none", tmp_path / "home")
