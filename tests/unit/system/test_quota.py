"""Project quota: the words to the kernel. Whether it obeys is tried where there is one (tests/root/test_quota.py)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

import pytest

from coworkd.system import quota


class FakeKernel:
    """quotactl_fd(2) that remembers, and fills in what `used` says."""

    def __init__(self, used: tuple[int, ...] = ()) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.records: list[bytes] = []
        self._used = used

    def __call__(self, fd: int, command: int, project: int, record: ctypes.Array[ctypes.c_char]) -> int:
        self.calls.append((fd, command, project))
        self.records.append(record.raw)
        if self._used:
            record.raw = struct.pack("=8QI4x", *self._used, 0)
        return 0


def test_a_limit_is_hard_and_soft_in_whole_units_and_sets_nothing_else() -> None:
    kernel = FakeKernel()
    quota.set_limit(7, 1001, limit_bytes=5 * 1024 + 1, limit_inodes=9, quotactl=kernel)
    assert kernel.calls == [(7, quota.Q_SETQUOTA, 1001)]
    assert struct.unpack("=8QI4x", kernel.records[0]) == (6, 6, 0, 9, 9, 0, 0, 0, quota.QIF_LIMITS)


def test_use_is_read_in_bytes() -> None:
    kernel = FakeKernel((6, 6, 4096, 9, 9, 3, 0, 0))
    assert quota.get_use(7, 1001, quotactl=kernel) == quota.ProjectUse(
        bytes=4096, inodes=3, limit_bytes=6144, limit_inodes=9
    )


def test_a_kernel_without_quota_shows_no_directory_for_it(tmp_path: Path) -> None:
    assert not quota.kernel_has_quota(str(tmp_path))
    (tmp_path / "sys/fs/quota").mkdir(parents=True)
    assert quota.kernel_has_quota(str(tmp_path))


def test_a_file_system_that_knows_no_projects_says_so() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            quota.get_project(fd)
    finally:
        os.close(fd)
    assert caught.value.errno in (errno.ENOTTY, errno.EOPNOTSUPP)
