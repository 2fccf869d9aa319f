from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any

import pytest

from coworkd.system import clone


def test_what_is_forked_for_the_parent_is_the_parents_child() -> None:
    told, tell = os.pipe()
    parent, forker = os.getpid(), os.fork()
    if forker == 0:
        child = clone.fork_for_parent(None)
        if child == 0:
            os._exit(7 if os.getppid() == parent else 8)
        os.write(tell, b"%d" % child)
        os._exit(0)
    os.waitpid(forker, 0)
    child = int(os.read(told, 20))
    for fd in (told, tell):
        os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_fork_into_a_cgroup_names_its_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def held(number: ctypes.c_long, arguments: Any, size: ctypes.c_long) -> int:
        calls.append((number.value, bytes(arguments), size.value))
        return 4321

    monkeypatch.setattr(clone, "_held", held)
    assert clone.fork_for_parent(9) == 4321
    (number, arguments, size) = calls[0]
    assert (number, size) == (435, 88)
    flags, *_, cgroup = words = struct.unpack("=11Q", arguments)
    assert (flags, words[4], cgroup) == (0x200008000, 0, 9)


def test_fork_into_what_is_no_cgroup_is_told(tmp_path: Any) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError, match=r".") as caught:
        clone.fork_for_parent(directory)
    os.close(directory)
    assert caught.value.errno in (errno.EBADF, errno.EINVAL, errno.EPERM, errno.ENOSYS)
