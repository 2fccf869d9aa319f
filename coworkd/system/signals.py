"""Signal dispositions by number, the two included that Python has no name for.

glibc keeps 32 and 33 to itself and Python's `signal` leaves them out, yet an ancestor may have them ignored, and what is
ignored stays so across an exec. Source: rt_sigaction(2), signal(7).
"""

from __future__ import annotations

import os
import signal

from coworkd.system import libc

_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
_KERNEL_SIGSET_BYTES = 8
_DEFAULT_ACTION = bytes(32)
"""The kernel's struct sigaction with handler SIG_DFL: handler, flags, restorer, mask; all zero on both machines."""


def reset_all() -> None:
    """Set every signal to its default, whatever was inherited. Handlers of Python's own are forgotten with it."""
    for number in range(1, signal.SIGRTMAX + 1):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            libc.syscall(_SYS_RT_SIGACTION, number, _DEFAULT_ACTION, None, _KERNEL_SIGSET_BYTES)
