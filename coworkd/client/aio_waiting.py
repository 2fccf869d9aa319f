"""Tasks that wait for what one of them reads, and which of them reads next.

Rules
- Who waits says for what: a call, an inbox, a feed. A read wakes those for whom something came, and looks at nobody else: of many
  commands that are attached, what came is for a few.
- Whoever read and goes hands on: one that still waits is asked to read, and no second one until it runs.
- One that is cancelled when it was asked is asked no more; whoever it belongs to hands on.

It reads nothing itself, and knows no link. Whoever is woken looks whether it has what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio


class Waiting:
    """The tasks of one client that wait while another reads."""

    def __init__(self) -> None:
        self._waiting: dict[object, list[trio.Event]] = {}
        """What is waited for → what wakes those who do; who came first is first."""
        self._asked: trio.Event | None = None

    async def wait(self, thing: object) -> None:
        """Return when `thing` is woken, at `wake_all`, or when this task is asked to read."""
        woken = trio.Event()
        self._waiting.setdefault(thing, []).append(woken)
        try:
            await woken.wait()
        except trio.Cancelled:
            self._forget(thing, woken)
            raise
        finally:
            if self._asked is woken:
                self._asked = None

    def wake(self, things: Iterable[object]) -> None:
        """Something came for these."""
        for thing in things:
            for woken in self._waiting.pop(thing, ()):
                woken.set()

    def wake_all(self) -> None:
        """Everybody is to look for themselves."""
        self.wake(tuple(self._waiting))

    def hand_on(self) -> None:
        """Nobody reads: ask the first that waits to."""
        if self._asked is None and self._waiting:
            thing = next(iter(self._waiting))
            self._asked = self._waiting[thing][0]
            self._forget(thing, self._asked)
            self._asked.set()

    def _forget(self, thing: object, woken: trio.Event) -> None:
        waiting = self._waiting.get(thing, [])
        if woken in waiting:
            waiting.remove(woken)
            if not waiting:
                del self._waiting[thing]
