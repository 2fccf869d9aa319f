"""Keeps sessions to their part of the disk where the kernel does not: looks now and then at those in which commands run.

Rules
- A session over its limit (`limits.disk_max`) starts no further command until it is below it again: `session.prune`, or deleting files
  by `file.remove`, helps. Going over and coming back are events, `storage.quota`.
- One that is over by a tenth is stopped: its commands are ended, which is in the audit log before it is done.
- A round looks at each of those sessions for a bounded time, one after the other. What it cannot see in that time counts as it is seen:
  such a session may take more than is known, never less.
"""

from __future__ import annotations

import logging

import trio

from coworkd.model.errors import CoworkError, LimitExceeded
from coworkd.model.ports import AuditPort, EventPort, QuotaPort
from coworkd.model.session import SessionRecord
from coworkd.services.session_table import SessionTable
from coworkd.services.session_usage import Measured, UsageMeter

ROUND_S = 30.0
_DEADLINE_S = 10.0
_AGAIN_S = 2.0
"""Whoever is refused may have made room just now: looked at again when the last look is older than that."""
STOP_PERCENT = 110
_log = logging.getLogger("coworkd.session")


class UsageWatch:
    """Implements `sessions.CommandGate`."""

    def __init__(
        self, *, table: SessionTable, meter: UsageMeter, quota: QuotaPort, audit: AuditPort, events: EventPort
    ) -> None:
        self._table = table
        self._meter = meter
        self._quota = quota
        self._audit = audit
        self._events = events
        self._over: set[str] = set()

    async def serve(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(ROUND_S)
            if self._quota.kind == "watched":
                await self.look()

    async def look(self) -> None:
        """One round."""
        self._over &= set(self._table.records)
        for record in list(self._table.records.values()):
            if self._table.count(record.name):
                try:
                    await self._judge(record, young_s=0)
                except CoworkError as error:
                    _log.warning("what session %s takes is not known: %s", record.name, error.message)

    async def refuse_command(self, session: str, /) -> None:
        """See `sessions.CommandGate`."""
        if session not in self._over:
            return
        record = self._table.find(session)
        try:
            measured, limit_bytes = await self._judge(record, young_s=_AGAIN_S)
        except CoworkError as error:
            _log.warning("what session %s takes is not known: %s", session, error.message)
            return
        if session in self._over:
            raise LimitExceeded(
                f"session {session} takes {measured.bytes} bytes of the disk and may take {limit_bytes}; make room by "
                "session.prune or file.remove, or raise limits.disk_max",
                session=session,
                used_bytes=measured.bytes,
                limit_bytes=limit_bytes,
            )

    async def _judge(self, record: SessionRecord, *, young_s: float) -> tuple[Measured, int]:
        limit_bytes = await self._meter.limit_bytes(record)
        measured = await self._meter.measured(record, young_s=young_s, deadline_s=_DEADLINE_S)
        is_over = bool(limit_bytes) and measured.bytes > limit_bytes
        if is_over != (record.name in self._over):
            self._turn(record.name, measured, limit_bytes, is_over=is_over)
        if is_over and measured.bytes * 100 > limit_bytes * STOP_PERCENT and self._table.count(record.name):
            await self._stop(record.name, measured, limit_bytes)
        return measured, limit_bytes

    def _turn(self, name: str, measured: Measured, limit_bytes: int, *, is_over: bool) -> None:
        (self._over.add if is_over else self._over.discard)(name)
        _log.warning("session %s takes %d bytes of the disk, and may take %d", name, measured.bytes, limit_bytes)
        told = {"session": name, "used_bytes": measured.bytes, "limit_bytes": limit_bytes, "over": is_over}
        self._events.publish("storage.quota", told)

    async def _stop(self, name: str, measured: Measured, limit_bytes: int) -> None:
        if self._table.processes is None:
            return
        told = {"session": name, "used_bytes": measured.bytes, "limit_bytes": limit_bytes}
        await self._audit.record("session.quota", {**told, "reason": "its commands are ended"})
        _log.error("the commands of session %s are ended: it takes far more of the disk than it may", name)
        try:
            await self._table.processes.end_session(name)
        except CoworkError as error:  # of what it takes nothing is less known by that
            _log.error("session %s: %s", name, error.message)
