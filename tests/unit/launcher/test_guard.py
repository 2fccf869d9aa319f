"""The guard, with real children: each test forks one that plays the guard, for it takes every child it has."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from coworkd.launcher import guard
from coworkd.launcher.guard import end_orphans, stand_guard

_WAIT_S = 60.0


def in_a_child(call: Callable[[], int]) -> int:
    """`call` in a child of its own; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(call())
        except BaseException:
            os._exit(99)
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pytest.fail("the child did not end")


def sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_end_orphans_leaves_no_child() -> None:
    def play() -> int:
        pids = [sleeper() for _ in range(3)]
        end_orphans()
        return sum(is_there(pid) for pid in pids)

    assert in_a_child(play) == 0


def test_end_orphans_does_not_wait_for_ever_for_who_hangs_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_send", lambda pid, number: None)  # as good as unkillable

    def play() -> int:
        pid = sleeper()
        end_orphans(limit_s=0.05)
        left = is_there(pid)
        os.kill(pid, signal.SIGKILL)
        return 7 if left else 0

    assert in_a_child(play) == 7


@pytest.mark.parametrize(("how", "status"), [(lambda: os._exit(3), 3), (lambda: os.kill(os.getpid(), 9), 128 + 9)])
def test_stand_guard_ends_what_the_launcher_leaves(how: Callable[[], None], status: int) -> None:
    read, write = os.pipe()

    def play() -> int:
        ended = stand_guard()
        if ended is None:
            for _ in range(2):
                os.write(write, b"%d " % sleeper())
            how()
        return ended or 0

    assert in_a_child(play) == status
    left = [int(word) for word in os.read(read, 100).split()]
    os.close(read)
    os.close(write)
    assert len(left) == 2
    assert not any(is_there(pid) for pid in left)


def test_stand_guard_hands_a_term_on() -> None:
    def play() -> int:
        guard_pid = os.getpid()
        ended = stand_guard()
        if ended is None:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
            os.kill(guard_pid, signal.SIGTERM)
            time.sleep(60)
        return ended or 0

    assert in_a_child(play) == 5


def test_stand_guard_that_is_killed_takes_the_launcher_along() -> None:
    read, write = os.pipe()

    def play() -> int:
        guard_pid = os.getpid()
        if stand_guard() is None:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0 * os.write(write, b"+")))
            os.kill(guard_pid, signal.SIGKILL)
            time.sleep(60)
        return 0

    assert in_a_child(play) == -signal.SIGKILL
    assert os.read(read, 1) == b"+"
    os.close(read)
    os.close(write)
