"""Follow the log of a guest into a file: no line twice, none left out unsaid.

coworkd numbers its lines and keeps the newest of them. `logs {after}` answers those behind a number, oldest first; `next`, the number
to ask behind later; and `missed`, how many were gone already. Numbers begin anew with each coworkd, which is known by its boot and by
when its first stage began.

What was gone from the guest's ring before it was asked for stands in the file as a line of our own that says how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from coworkd.client.aio import AsyncClient
from coworkd.client.pending import read_answer
from coworkd.model.calls import HelloAnswer, LogsAnswer
from coworkd.model.errors import CoworkError, OutOfRange
from host_stub.logs import BoundedLog, compose_note, compose_text

LINES = 250
"""Asked for at once."""


class LogFollower:
    """Where following stands; lives over any number of links. The log is the caller's to close."""

    def __init__(self, log: BoundedLog, *, wall: Callable[[], float] = time.time) -> None:
        self._log = log
        self._wall = wall
        self._whose: tuple[str, float] | None = None
        self._after = 0

    async def follow(self, client: AsyncClient, pause_s: float) -> None:
        """Until the link breaks; cancelled in the middle of a write, the lines of that write are in the file."""
        self._begin(client.hello)
        while client.broken is None:
            more = False
            try:
                more = await self._take(client)
            except OutOfRange:  # the guest began anew and we did not see it
                self._after = 0
            except CoworkError:  # it is coming up, or the link is gone
                pass
            if not more:
                await trio.sleep(pause_s)

    def _begin(self, hello: HelloAnswer) -> None:
        whose = (hello.boot_id, hello.stages[0].started_at if hello.stages else 0.0)
        if whose != self._whose:
            self._whose, self._after = whose, 0

    async def _take(self, client: AsyncClient) -> bool:
        """One call; whether there is more at once."""
        answer = read_answer("logs", await client.call("logs", {"after": self._after, "limit": LINES}), LogsAnswer)
        # The answer's numbers are trusted to be numbers only: a guest that counts backwards is read again, and no faster than others.
        lines = [compose_text(line) for line in answer.lines[:LINES]]
        if answer.missed > 0:
            lines.insert(
                0, compose_note(f"{answer.missed} lines of the guest were gone before they could be read", self._wall())
            )
        going_on = answer.next > self._after
        self._after = max(0, answer.next)
        if lines and going_on:
            with trio.CancelScope(shield=True):  # a write that is begun ends, and `_after` says so
                await trio.to_thread.run_sync(self._log.write, lines)
        return going_on and len(answer.lines) == LINES
