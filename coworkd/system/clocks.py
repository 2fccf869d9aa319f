"""The three clocks of the kernel, and setting one of them. Sources: clock_gettime(2), clock_settime(2)."""

from __future__ import annotations

import time
from typing import NamedTuple


class Clocks(NamedTuple):
    """Read at one moment, in seconds."""

    real: float
    monotonic: float
    boot: float
    """CLOCK_BOOTTIME: monotonic, and time asleep counts."""


def read_clocks() -> Clocks:
    """All three; apart by the nanoseconds that reading takes."""
    return Clocks(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))


def set_real(seconds: float) -> None:
    """Set CLOCK_REALTIME. Raises `OSError` (EPERM) without CAP_SYS_TIME."""
    time.clock_settime(time.CLOCK_REALTIME, seconds)
