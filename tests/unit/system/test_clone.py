from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from typing import Any

import pytest

from coworkd.system import clone


def test_fork_into_no_cgroup_is_a_fork() -> None:
    pid = clone.fork_into(None)
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_fork_into_a_cgroup_names_its_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def held(number: ctypes.c_long, arguments: Any, size: ctypes.c_long) -> int:
        calls.append((number.value, bytes(arguments), size.value))
        return 4321

    monkeypatch.setattr(clone, "_held", held)
    assert clone.fork_into(9) == 4321
    (number, arguments, size) = calls[0]
    assert (number, size) == (435, 88)
    flags, *_, cgroup = words = struct.unpack("=11Q", arguments)
    assert (flags, words[4], cgroup) == (0x200000000, signal.SIGCHLD, 9)


def test_fork_into_what_is_no_cgroup_is_told(tmp_path: Any) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError, match=r".") as caught:
        clone.fork_into(directory)
    os.close(directory)
    assert caught.value.errno in (errno.EBADF, errno.EINVAL, errno.EPERM, errno.ENOSYS)
