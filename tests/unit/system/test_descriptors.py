from __future__ import annotations

import os
import resource

import pytest

from coworkd.system import descriptors
from coworkd.system.descriptors import close_all_but, close_range, raise_descriptor_limit


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_close_range_closes_both_ends_and_nothing_beyond() -> None:
    high = [os.dup2(0, number) for number in (500, 501, 503, 504)]
    close_range(501, 503)
    assert [is_open(fd) for fd in high] == [True, False, False, True]
    close_range(500)
    assert not any(map(is_open, high))


@pytest.mark.parametrize(
    ("kept", "ranges"),
    [
        ((), [(0,)]),
        ((0, 1, 2), [(3,)]),
        ((7, 0, 5, 7), [(1, 4), (6, 6), (8,)]),
    ],
)
def test_close_all_but_leaves_out_those(
    monkeypatch: pytest.MonkeyPatch, kept: tuple[int, ...], ranges: list[tuple[int, ...]]
) -> None:
    closed: list[tuple[int, ...]] = []
    monkeypatch.setattr(descriptors, "close_range", lambda *numbers: closed.append(numbers))
    close_all_but(kept)
    assert closed == ranges


def test_the_descriptor_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
