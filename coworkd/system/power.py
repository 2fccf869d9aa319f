"""Turning the machine off, now. Source: reboot(2): nothing is synced, no unit is stopped; that is the caller's."""

from __future__ import annotations

import ctypes

from coworkd.system import libc

_RB_POWER_OFF = 0x4321FEDC

_reboot = libc.function("reboot")


def turn_off() -> None:
    """Never returns where it succeeds. Raises `OSError` (EPERM) without CAP_SYS_BOOT."""
    libc.check(_reboot(ctypes.c_int(_RB_POWER_OFF)))
