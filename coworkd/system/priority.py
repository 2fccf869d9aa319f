"""Running behind everybody else. Sources: nice(2), ioprio_set(2)."""

from __future__ import annotations

import os

from coworkd.system import libc

_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS, _CLASS_IDLE, _CLASS_SHIFT = 1, 3, 13
_NICE = 10


def yield_to_others() -> None:
    """Take CPU and disk only as they are left over, in as far as the kernel knows how; for the life of the calling process."""
    os.nice(_NICE)
    number = _SYS_IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        libc.syscall(number, _WHO_PROCESS, 0, _CLASS_IDLE << _CLASS_SHIFT)
