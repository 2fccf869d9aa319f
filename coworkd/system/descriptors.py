"""close_range(2): close every descriptor from one number to another, open or not."""

from __future__ import annotations

from coworkd.system import libc

_LAST_FD = 0x7FFFFFFF
_SYS_CLOSE_RANGE = 436


def close_range(first: int, last: int = _LAST_FD) -> None:
    """Close `first` to `last`, both included; numbers that are not open are passed over."""
    libc.syscall(_SYS_CLOSE_RANGE, first, last, 0)
