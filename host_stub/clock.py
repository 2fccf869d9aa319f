"""Whether this host slept or its clock was set, seen from the distance of two clocks.

The wall clock goes on while a machine sleeps, the monotonic one stands still (clock_gettime(2) on Linux, mach_absolute_time on
macOS); when the wall clock is set, it alone moves. So one distance shows both, and a guest's clock is wrong after either. Slewing by
NTP is at most 0.5 ms a second and stays below `JUMP_S` between two looks.

It sets nothing: `guest_link` tells the guest the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

JUMP_S = 0.1
"""As much as coworkd lets its clock be wrong (DESIGN 12)."""


class JumpWatch:
    """The distance at the last look. Clocks are given for tests."""

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._distance = wall() - monotonic()

    def look(self) -> float | None:
        """The seconds that the wall clock gained since the last look, negative where it was set back; None where it just ran."""
        distance = self._wall() - self._monotonic()
        jump = distance - self._distance
        self._distance = distance
        return jump if abs(jump) >= JUMP_S else None
