"""How long a command may take to begin: one timer for all that do, since a deadline of its own for each costs more than its answer.

Rules
- All have the same time, so whoever was held first has none left first; one that has begun by then, its terminal included, is passed over.
- For one that has not, `too_late` is called, once; whoever holds it hears of that when it lets go.
- A coworkd that stood still (a signal, a machine without a core to spare) finds the time over and the news there at once: the news
  comes first. A command that ran is never told as one that did not start, since that may be started again.
- Who is held is being waited for, so they are never more than the commands there are.

What is done about it is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from coworkd.services.process_live import LiveProcess

_TURNS = 2
"""Of the loop: before the first it takes notice of what has come, and by the second whoever waits for that has had a turn."""


class Patience:
    """`hold` before waiting for a command, `let_go` afterwards, whatever happened; `serve` watches the time."""

    def __init__(self, limit_s: float, too_late: Callable[[LiveProcess], None]) -> None:
        self._limit_s = limit_s
        self._too_late = too_late
        self._held: dict[LiveProcess, float] = {}
        """Until when, the first first."""
        self._late: set[LiveProcess] = set()
        self._some = trio.Event()

    def hold(self, process: LiveProcess) -> None:
        """From now on it has `limit_s` to begin."""
        self._held[process] = trio.current_time() + self._limit_s
        self._some.set()

    def let_go(self, process: LiveProcess) -> bool:
        """It is not waited for any more; whether it was in time."""
        self._held.pop(process, None)
        in_time = process not in self._late
        self._late.discard(process)
        return in_time

    async def serve(self) -> None:
        """Never returns. While nobody is held, nothing wakes."""
        while True:
            await self._some.wait()
            while self._held:
                process, until = next(iter(self._held.items()))
                if trio.current_time() < until:
                    await trio.sleep_until(until)
                for _ in range(_TURNS):
                    await trio.lowlevel.checkpoint()
                if self._held.pop(process, None) is None:
                    continue
                if not (process.settled.is_set() and process.terminal_known.is_set()):
                    self._late.add(process)
                    self._too_late(process)
            self._some = trio.Event()
