"""What coworkd-egress tells becomes audit records and events, in order, and is acknowledged once it is durable.

Rules
- Nothing is acknowledged that is not in the log: an allowed connection waits for that before a byte of its session leaves. A log that
  cannot be written holds new connections back; the events stay here and are tried again.
- Told again after a broken conversation is not written again; what a coworkd-egress told before it died is written all the same.
- Each open has its close: those of a coworkd-egress that died are written when the next one begins. What an earlier coworkd recorded of
  the one that serves is known by the log (`recall`), as far back as `RECALL_LIMIT`.
- Bounded by coworkd-egress, which tells at most 4,096 events that were not acknowledged.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

import trio
from msgspec import Struct, structs

from coworkd.model.calls import EgressSessionCounts
from coworkd.model.egress import EgressEvent
from coworkd.model.errors import CoworkError
from coworkd.model.ports import AuditReader, EventPort

LOST = "coworkd-egress died, and what had moved by then is not known"
RECALL_LIMIT = 10_000
"""Records that are looked through."""
_BATCH = 256
_RETRY_S = 0.5
_log = logging.getLogger("coworkd.egress")

Acknowledge = Callable[[int], Awaitable[None]]


class _Counts(Struct):
    """One session's sums."""

    connections_total: int = 0
    refused_total: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class EgressRecords:
    """Takes events by `told`; `serve` owns the task that writes them."""

    def __init__(self, *, audit: AuditReader, events: EventPort, clock: Callable[[], float] = time.time) -> None:
        self._audit = audit
        self._events = events
        self._clock = clock
        self._open: dict[int, EgressEvent] = {}
        """Connection → its open, until its close is told. Bounded by what coworkd-egress has open."""
        self._closed: set[int] | None = None
        """Connections whose close was told while the log is looked through."""
        self._pending: list[tuple[int, EgressEvent]] = []
        """With the pid of the coworkd-egress that told it."""
        self._pid = 0
        self._last_seq = 0
        self.durable = 0
        """The last `seq` of this coworkd-egress that is in the log."""
        self._arrived = trio.Event()
        self._written = trio.Event()
        """Set while nothing waits to be written."""
        self._written.set()
        self._counts: dict[str, _Counts] = {}

    def begin(self, pid: int) -> None:
        """A conversation begins; another `pid` than before is a new coworkd-egress, which counts anew and has nothing open."""
        if pid != self._pid:
            self._pending += [(self._pid, self._compose_lost(event)) for event in self._open.values()]
            self._open.clear()
            self._wake()
            self._pid, self._last_seq, self.durable = pid, 0, 0

    def told(self, events: tuple[EgressEvent, ...]) -> None:
        """Take what was told; never blocks."""
        for event in events:
            if event.seq <= self._last_seq:
                continue
            self._last_seq = event.seq
            self._pending.append((self._pid, event))
            if event.kind == "open":
                self._open[event.connection] = event
            elif event.kind == "close":
                self._open.pop(event.connection, None)
                if self._closed is not None:
                    self._closed.add(event.connection)
        self._wake()

    async def recall(self) -> None:
        """Know again what the coworkd-egress of this conversation has open since an earlier coworkd. Raises `DiskFailed`."""
        pid, closed = self._pid, set[int]()
        self._closed = closed
        try:
            kinds = ("egress.begin", "egress.decision", "egress.close")
            found = await self._audit.find(kinds=kinds, limit=RECALL_LIMIT)
        finally:
            self._closed = None
        if pid == self._pid:
            known = _read_open(found.records, pid)
            self._open = {number: event for number, event in known.items() if number not in closed} | self._open

    def _wake(self) -> None:
        if self._pending and self._written.is_set():
            self._written = trio.Event()
        self._arrived.set()

    async def wait_written(self) -> None:
        """Return once all that was told is in the log."""
        while self._pending:
            await self._written.wait()

    @property
    def unrecorded(self) -> int:
        return len(self._pending)

    def expect(self, session: str) -> None:
        """The session is served: count what is told of it."""
        self._counts.setdefault(session, _Counts())

    def forget(self, session: str) -> None:
        """The session is gone; what is still told of it is recorded, and counted nowhere."""
        self._counts.pop(session, None)

    def counts(self) -> tuple[EgressSessionCounts, ...]:
        """By session."""
        connections = Counter(event.session for event in self._open.values())
        return tuple(
            EgressSessionCounts(session=session, connections=connections[session], **structs.asdict(counts))
            for session, counts in sorted(self._counts.items())
        )

    async def serve(self, acknowledge: Acknowledge) -> None:
        """Write, publish, acknowledge. Never returns."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._pending:
                await self._write(acknowledge)
            self._written.set()

    async def _write(self, acknowledge: Acknowledge) -> None:
        pid = self._pending[0][0]
        batch = [event for _, event in takewhile(lambda pair: pair[0] == pid, islice(self._pending, _BATCH))]
        try:
            await self._audit.record_all([compose_record(event) for event in batch])
        except CoworkError as error:
            _log.error("egress is not recorded, new connections wait: %s", error.message)
            await trio.sleep(_RETRY_S)
            return
        del self._pending[: len(batch)]
        if pid == self._pid:
            self.durable = batch[-1].seq
            await acknowledge(self.durable)
        for event in batch:
            self._count(event)
            self._events.publish(*_publication(event))

    def _compose_lost(self, event: EgressEvent) -> EgressEvent:
        now = self._clock()
        return structs.replace(event, kind="close", at=now, reason=LOST, took_s=max(0.0, now - event.at))

    def _count(self, event: EgressEvent) -> None:
        counts = self._counts.get(event.session)
        if counts is None:
            return
        if event.kind == "open":
            counts.connections_total += 1
        elif event.kind == "refused":
            counts.refused_total += event.count
        elif event.kind == "close":
            counts.sent_bytes += event.sent_bytes
            counts.received_bytes += event.received_bytes


def _read_open(records: Sequence[Mapping[str, Any]], pid: int) -> dict[int, EgressEvent]:
    """Connection → open without a close, of the coworkd-egress `pid`, in records that follow each other."""
    found: dict[int, EgressEvent] = {}
    teller = pid
    for record in records:
        if record["kind"] == "egress.begin":
            teller = record["pid"]
            if teller != pid:
                found.clear()
        elif record["kind"] == "egress.close":
            if record.get("reason") != LOST:  # that is of the one before
                found.pop(record["connection"], None)
        elif record.get("allowed") and teller == pid:
            given = {name: record[name] for name in _OPEN_FIELDS if record.get(name) is not None}
            found[record["connection"]] = EgressEvent(seq=0, kind="open", **given)
    return found


_OPEN_FIELDS = ("session", "connection", "at", "protocol", "host", "port", "rule", "upstream", "address")


def compose_record(event: EgressEvent) -> tuple[str, dict[str, Any]]:
    """Kind and fields of the audit record of an event."""
    fields: dict[str, Any] = {
        "session": event.session,
        "connection": event.connection,
        "protocol": event.protocol,
        "host": event.host,
        "port": event.port,
        "upstream": event.upstream or None,
        "address": event.address or None,
    }
    if event.kind in ("open", "refused"):
        count = event.count if event.count > 1 else None
        allowed = event.kind == "open"
        return "egress.decision", {
            **fields,
            "allowed": allowed,
            "rule": event.rule,
            "reason": event.reason,
            "count": count,
        }
    if event.kind == "close":
        return "egress.close", {
            **fields,
            "sent_bytes": event.sent_bytes,
            "received_bytes": event.received_bytes,
            "took_s": event.took_s,
            "reason": event.reason or None,
        }
    return "egress.request", {
        **fields,
        "method": event.method,
        "path": event.path,
        "status": event.status,
        "reason": event.reason or None,
    }


def _publication(event: EgressEvent) -> tuple[str, dict[str, Any]]:
    kind, fields = compose_record(event)
    return kind, {name: value for name, value in fields.items() if value is not None}
