"""keyctl(2): a session keyring of one's own, so that a payload never holds the supervisor's keys."""

from __future__ import annotations

import errno
import os

from coworkd.system import libc

_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
_KEYCTL_JOIN_SESSION_KEYRING = 1


def join_new_session_keyring() -> None:
    """Leave the inherited session keyring for a new, empty, anonymous one; nothing to leave where the kernel has no keys."""
    try:
        libc.syscall(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
