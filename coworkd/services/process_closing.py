"""The end of many commands at once: of a session, of the machine, of coworkd.

Rules
- It returns when each is gone and recorded, or has had `END_S` for that: who waits for a share in the kernel cannot be ended.
- One that waits for its session is told that it is ended, and is not waited for: it would wait for who ends it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import trio

from coworkd.model.errors import CoworkError, Unavailable
from coworkd.services.process_ending import Ender
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_table import ProcessTable

END_S = 10.0
"""How long the end of a session waits for its commands to be gone, once they are killed."""
_log = logging.getLogger("coworkd.process")


class Closer:
    """Ends processes by what they belong to."""

    def __init__(self, *, table: ProcessTable, ender: Ender) -> None:
        self._table = table
        self._ender = ender

    async def end_session(self, session: str, /) -> None:
        """Kill every process of the session; returns when each is gone and recorded. Ended ones stay kept, and those that wait for
        the session are not started any more.

        Raises `Unavailable` for those that are not gone by then: who waits for a share in the kernel cannot be ended.
        """
        left = await self._end_where(lambda process: process.session == session)
        if left:
            raise Unavailable(
                f"{left} commands of session {session} were killed and have not ended within {END_S:g} s: a share that they use"
                " does not answer; try again when it does",
                session=session,
            )

    async def terminate_all(self, grace_s: float) -> None:
        """TERM to every process, KILL to those that `grace_s` later still run; returns as `end_all` does."""
        with trio.move_on_after(grace_s):
            for process in self._table.where(lambda process: process.running):
                with contextlib.suppress(CoworkError):  # the launcher is gone, and all of them with it
                    await self._ender.end(process, "killed", grace_s=grace_s, why="the machine is shut down")
            for process in self._table.where(lambda process: process.running):
                await process.over.wait()
        await self.end_all()

    async def end_all(self) -> None:
        """Kill every process; returns when each is gone and recorded, or has had its time for that."""
        left = await self._end_where(lambda process: True)
        if left:
            _log.error("%d commands were killed and have not ended: a share that they use does not answer", left)

    async def _end_where(self, wanted: Callable[[LiveProcess], bool]) -> int:
        """How many have not ended in time."""

        def stands(process: LiveProcess) -> bool:
            # One that waits for its session would wait for who ends it here; told that it is ended, it is not started.
            waits = process.ended_by is not None and not process.asked_for
            return wanted(process) and not waits and not process.recorded.is_set()

        with trio.move_on_after(END_S):
            while unrecorded := self._table.where(stands):
                for process in unrecorded:
                    await self._ender.end_unwatched(process, "killed", "its session ends")
                for process in filter(stands, unrecorded):
                    await process.recorded.wait()
        return len(self._table.where(stands))
