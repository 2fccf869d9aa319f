"""The lock that keeps a second coworkd off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed, InvalidState
from coworkd.services.storage_lock import StateLock


def test_a_second_one_is_told_who_has_it_and_what(tmp_path: Path) -> None:
    lock = StateLock(str(tmp_path / "state"), what="the disk")
    try:
        with pytest.raises(
            InvalidState, match=rf"the disk is in use by another coworkd \(pid {os.getpid()}\)"
        ) as caught:
            StateLock(str(tmp_path / "state"), what="the disk")
        assert caught.value.details["pid"] == os.getpid()
    finally:
        lock.close()


def test_one_that_let_go_keeps_nobody_off_whatever_pid_it_left(tmp_path: Path) -> None:
    lock = StateLock(str(tmp_path), what="x")
    lock.close()
    lock.close()
    assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
    StateLock(str(tmp_path), what="x").close()


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskFailed):
        StateLock(str(tmp_path), what="x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_refused_one_leaves_no_descriptor(tmp_path: Path) -> None:
    lock = StateLock(str(tmp_path), what="x")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidState):
        StateLock(str(tmp_path), what="x")
    assert len(os.listdir("/proc/self/fd")) == before
    lock.close()
