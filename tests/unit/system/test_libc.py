from __future__ import annotations

import errno
import os

import pytest

from coworkd.system import libc

SYS_CLOSE_RANGE = 436


def test_syscall_returns_what_the_kernel_does() -> None:
    assert libc.syscall(SYS_CLOSE_RANGE, 4000, 4001, 0) == 0


def test_syscall_raises_with_errno() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)) as caught:
        libc.syscall(SYS_CLOSE_RANGE, 2, 1, 0)
    assert caught.value.errno == errno.EINVAL


def test_check_passes_on_success_and_zero() -> None:
    assert [libc.check(0), libc.check(7)] == [0, 7]


def test_check_names_the_first_path() -> None:
    chdir = libc.function("chdir")
    with pytest.raises(FileNotFoundError) as caught:
        libc.check(chdir(b"/no/such/place"), b"/no/such/place", b"/other")
    assert caught.value.filename == b"/no/such/place"


def test_function_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError):
        libc.function("no_such_function")
