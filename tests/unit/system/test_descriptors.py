from __future__ import annotations

import os

from coworkd.system.descriptors import close_range


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_close_range_closes_both_ends_and_nothing_beyond() -> None:
    high = [os.dup2(0, number) for number in (500, 501, 503, 504)]
    close_range(501, 503)
    assert [is_open(fd) for fd in high] == [True, False, False, True]
    close_range(500)
    assert not any(map(is_open, high))
