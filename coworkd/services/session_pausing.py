"""`session.pause` and `session.resume`: the commands of a session stand still, and go on.

Rules
- That a session is paused is durable before it is; another coworkd, or a guest that was started anew, finds it so.
- While it is, none begins in it. Killing, time limits, `session.delete` and everything that is done for its files go on: who serves
  those is not a command. What a command has put out can be read.
- A command that sleeps in the kernel stands still when that lets go of it: the answer tells whether all do.
"""

from __future__ import annotations

import logging

import trio
from msgspec import structs

from coworkd.model.calls_limits import PauseSession, SessionPaused
from coworkd.model.errors import CoworkError, InvalidState
from coworkd.model.ports import AuditPort, EventPort
from coworkd.model.session import SessionRecord
from coworkd.services.session_opening import Openings
from coworkd.services.session_table import SessionTable

WAIT_S = 1.0
"""How long `pause` waits for the last of them."""
_LOOK_S = 0.02
_log = logging.getLogger("coworkd.session")


class Pausing:
    """Pauses sessions, and says which are."""

    def __init__(self, *, table: SessionTable, openings: Openings, audit: AuditPort, events: EventPort) -> None:
        self._table = table
        self._openings = openings
        self._audit = audit
        self._events = events

    async def pause(self, params: PauseSession) -> SessionPaused:
        """See `Sessions.pause`. One that is paused stays so."""
        name = self._table.find(params.session).name
        async with self._table.in_turn(name):
            record = await self._turn(name, paused=True)
            frozen = await self._wait_frozen(name)
        return SessionPaused(session=self._table.info(record), frozen=frozen)

    async def resume(self, params: PauseSession) -> SessionPaused:
        """See `Sessions.resume`. One that is not paused goes on."""
        name = self._table.find(params.session).name
        async with self._table.in_turn(name):
            record = await self._turn(name, paused=False)
        return SessionPaused(session=self._table.info(record), frozen=False)

    def refuse_if_paused(self, name: str) -> None:
        """Raises `InvalidState`: no command begins in it."""
        if self._table.find(name).paused:
            raise InvalidState(
                f"session {name} is paused, and no command begins in it: let it go on by session.resume"
                f" (coworkctl session resume {name})",
                session=name,
            )

    async def _turn(self, name: str, *, paused: bool) -> SessionRecord:
        known = self._table.find_ready(name)
        wanted = structs.replace(known, paused=paused)
        # Shielded: a cancellation on the way would leave commands that do another thing than the record says.
        with trio.CancelScope(shield=True):
            await self._audit.record("session.pause" if paused else "session.resume", {"session": name})
            await self._table.keep(wanted)
            try:
                await self._openings.freeze(name, frozen=paused)
            except CoworkError:
                await self._table.keep(known)
                raise
        if paused != known.paused:
            _log.info("session %s %s", name, "is paused" if paused else "goes on")
            self._events.publish("session.paused" if paused else "session.resumed", {"session": name})
        return wanted

    async def _wait_frozen(self, name: str) -> bool:
        with trio.move_on_after(WAIT_S):
            while not await self._openings.freeze(name, frozen=True):  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(_LOOK_S)
            return True
        return False
