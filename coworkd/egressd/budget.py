"""The time that understanding one session's bytes may take in one turn of the loop.

Who sends a body in pieces of one byte, or heads of nothing but names, makes us work a thousand times as long for each byte as others do,
and has hundreds of connections to do it on. So what is read to be understood is read while its session has time left in this turn; what
waits makes its descriptor ready again in the next, when the others had theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from coworkd.egressd.loop import Turning

TURN_S = 0.002


class Budget:
    """One session's. `clock` measures work, so it is not the loop's."""

    __slots__ = ("_clock", "_loop", "_spent_s", "_turn")

    def __init__(self, loop: Turning, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._turn = -1
        self._spent_s = 0.0

    @property
    def is_left(self) -> bool:
        """Whether something more may be understood in this turn."""
        return self._turn != self._loop.turns or self._spent_s < TURN_S

    def begin(self) -> float:
        """A moment to give to `spend`."""
        return self._clock()

    def spend(self, since: float) -> float:
        """Count the time since then; returns it."""
        took_s = self._clock() - since
        if self._turn != self._loop.turns:
            self._turn, self._spent_s = self._loop.turns, 0.0
        self._spent_s += took_s
        return took_s
