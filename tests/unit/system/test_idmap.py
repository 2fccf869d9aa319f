"""The ways it can fail; tests/root/test_launcher.py shows a folder through a real map."""

from __future__ import annotations

import builtins
import errno
import os
from typing import Any

import psutil
import pytest

from coworkd.system import idmap, namespaces


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, "no")


def test_no_namespace_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, children_before = open_fds(), children()
    monkeypatch.setattr(namespaces, "unshare", refuse)
    with pytest.raises(PermissionError, match="no new user namespace"):
        idmap.open_user_namespace(uid=(1, 2), gid=(1, 2))
    assert open_fds() == before
    assert children() == children_before


def test_a_map_the_kernel_refuses_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, children_before = open_fds(), children()
    written: list[str] = []

    def no_maps(path: Any, *words: Any, **named: Any) -> Any:
        written.append(str(path))
        raise PermissionError(errno.EPERM, "no", str(path))

    monkeypatch.setattr(namespaces, "unshare", lambda flags: None)
    monkeypatch.setattr(builtins, "open", no_maps)
    with pytest.raises(PermissionError):
        idmap.open_user_namespace(uid=(1, 2), gid=(1, 2))
    monkeypatch.undo()
    assert [path.rpartition("/")[2] for path in written] == ["uid_map"]
    assert open_fds() == before
    assert children() == children_before
