"""Tasks that wait for what one of them reads, and which of them reads next.

Rules
- A read wakes those who have what they wait for, and nobody else: of many commands that are attached, what came is for a few.
- Whoever read and goes hands on: one that still waits is asked to read, and no second one until it runs.
- One that is cancelled when it was asked is asked no more; whoever it belongs to hands on.

It reads nothing itself, and knows no link.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class Waiting:
    """The tasks of one client that wait while another reads."""

    def __init__(self) -> None:
        self._waiting: dict[trio.Event, Callable[[], bool]] = {}
        """What wakes each → whether it has what it waits for; who came first is first."""
        self._asked: trio.Event | None = None

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Return when `wake_ready` finds `ready`, at `wake_all`, or when this task is asked to read."""
        woken = trio.Event()
        self._waiting[woken] = ready
        try:
            await woken.wait()
        finally:
            self._waiting.pop(woken, None)
            if self._asked is woken:
                self._asked = None

    def wake_ready(self) -> None:
        """Something came: wake whom it is for."""
        for woken in [woken for woken, ready in self._waiting.items() if ready()]:
            self._wake(woken)

    def wake_all(self) -> None:
        """Everybody is to look for themselves."""
        for woken in tuple(self._waiting):
            self._wake(woken)

    def hand_on(self) -> None:
        """Nobody reads: ask the first that waits to."""
        if self._asked is None and self._waiting:
            self._asked = next(iter(self._waiting))
            self._wake(self._asked)

    def _wake(self, woken: trio.Event) -> None:
        del self._waiting[woken]
        woken.set()
