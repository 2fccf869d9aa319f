"""Descriptors as such: close_range(2), and how many there may be (getrlimit(2))."""

from __future__ import annotations

import resource
from collections.abc import Iterable

from coworkd.system import libc

_LAST_FD = 0x7FFFFFFF
_SYS_CLOSE_RANGE = 436


def close_range(first: int, last: int = _LAST_FD) -> None:
    """Close `first` to `last`, both included; numbers that are not open are passed over."""
    libc.syscall(_SYS_CLOSE_RANGE, first, last, 0)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor but those."""
    first = 0
    for fd in sorted(set(kept)):
        if first < fd:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def raise_descriptor_limit() -> None:
    """Up to the hard limit: the soft one that a shell or systemd gives is 1024, for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
