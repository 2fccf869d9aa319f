"""What is not as it was left at start is put right: told in the audit log, and homes given to the uids their sessions have now.

Rules
- Order: audit → record with the new uid and whom the home still belongs to → home and what else the session has on the disk, by the
  `measure` worker → record without. A crash anywhere leaves a record that says what is left to do.
- A session in which commands run, held by the launcher since before this coworkd, keeps what it has until the next start.
- What cannot be done now (the worker is away, a disk fails) is logged, told by `session.list` as `incomplete`, and done by the next
  `session.ensure`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio
from msgspec import structs

from coworkd.model.errors import CoworkError, InvalidState
from coworkd.model.ports import AuditPort, EventPort
from coworkd.model.session import SessionRecord
from coworkd.services.session_measuring import Place
from coworkd.services.session_opening import Openings
from coworkd.services.session_recovery import Finding
from coworkd.services.session_table import SessionTable

_log = logging.getLogger("coworkd.session")


class Reowner(Protocol):
    """Who gives trees to another uid."""

    async def reown(self, place: Place, uid_from: int, uid_to: int) -> int: ...


class Recovering:
    """`settle` once the commands that run are known, then `serve`."""

    def __init__(
        self,
        *,
        table: SessionTable,
        openings: Openings,
        reowner: Reowner,
        places: Callable[[str], tuple[Place, ...]],
        audit: AuditPort,
        events: EventPort,
    ) -> None:
        """`places`: what a session has on the disk, its home first."""
        self._table = table
        self._openings = openings
        self._reowner = reowner
        self._places = places
        self._audit = audit
        self._events = events

    def settle(self) -> None:
        """Leave those alone in which commands run; no verb has begun yet."""
        for finding in self._table.findings:
            if finding.before is not None and self._table.count(finding.session):
                _log.error("session %s keeps what it has while its commands run: %s", finding.session, finding.reason)
                self._table.records[finding.session] = finding.before

    async def serve(self) -> None:
        """Put right what was found, one session after the other; returns when that is done."""
        reasons: dict[str, list[Finding]] = {}
        for finding in self._table.findings:
            reasons.setdefault(finding.session, []).append(finding)
        for name, findings in reasons.items():
            async with self._table.in_turn(name):
                record = self._table.records.get(name)
                if record is None:
                    continue
                _log.warning("session %s: %s", name, "; ".join(finding.reason for finding in findings))
                try:
                    if record.reown_from:
                        await self.resolve(record)
                    elif findings[0].before is None:
                        await self._tell(record)
                except CoworkError as error:
                    _log.error("session %s waits for its next session.ensure: %s", name, error.message)

    async def resolve(self, record: SessionRecord) -> SessionRecord:
        """In the session's turn: its home goes over to its uid. Raises `InvalidState`, `DiskFailed`, `Unavailable`."""
        name = record.name
        if self._table.count(name):
            raise InvalidState(
                f"the home of session {name} has to go over to uid {record.uid}; end its commands first", session=name
            )
        await self._tell(record)
        await self._table.keep(record)
        await self._openings.close(name)
        for place in self._places(name):
            for uid in record.reown_from:
                await self._reowner.reown(place, uid, record.uid)
        done = structs.replace(record, reown_from=())
        with trio.CancelScope(shield=True):
            await self._table.keep(done)
        return done

    async def _tell(self, record: SessionRecord) -> None:
        reason = "; ".join(finding.reason for finding in self._table.findings if finding.session == record.name)
        told = {"session": record.name, "uid": record.uid, "reason": reason or "its home goes over to its uid"}
        fields = {"state": record.state, "gid": record.gid, "uids_before": [str(uid) for uid in record.reown_from]}
        await self._audit.record("session.recover", {**told, **fields})
        self._events.publish("session.recovered", told)
