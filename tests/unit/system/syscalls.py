"""A kernel that only remembers: stands for `libc.syscall`, so that what needs root is checked word by word."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from coworkd.system import libc

Word = int | bytes | None


class Syscalls:
    """`calls` are (number, words); buffers are told by their bytes. `results` are given in turn, errnos as negative numbers."""

    def __init__(self, *results: int) -> None:
        self.calls: list[tuple[int, tuple[Word, ...]]] = []
        self.results = list(results)

    def syscall(self, number: int, *words: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
        self.calls.append((number, tuple(bytes(w) if isinstance(w, ctypes.Array) else w for w in words)))
        result = self.results.pop(0) if self.results else 0
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    @property
    def call(self) -> tuple[int, tuple[Word, ...]]:
        (only,) = self.calls
        return only


def fake_syscalls(monkeypatch: pytest.MonkeyPatch, *results: int) -> Syscalls:
    made = Syscalls(*results)
    monkeypatch.setattr(libc, "syscall", made.syscall)
    return made


EAGAIN, EXDEV, ENOSYS, EPERM = -errno.EAGAIN, -errno.EXDEV, -errno.ENOSYS, -errno.EPERM
