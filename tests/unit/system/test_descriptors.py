from __future__ import annotations

import os
import resource

from coworkd.system.descriptors import close_range, raise_descriptor_limit


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_close_range_closes_both_ends_and_nothing_beyond() -> None:
    high = [os.dup2(0, number) for number in (500, 501, 503, 504)]
    close_range(501, 503)
    assert [is_open(fd) for fd in high] == [True, False, False, True]
    close_range(500)
    assert not any(map(is_open, high))


def test_the_descriptor_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
