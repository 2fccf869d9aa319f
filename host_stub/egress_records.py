"""The record of what went out through this host: logs/egress.log, JSON Lines, one for each decision and one at each end.

    {"at", "event": "allowed"|"refused"|"closed", "session", "host", "port", "address"?, "via"?, "kind"?, "reason"?, "up_bytes"?, …}

Rules
- Telling never waits: `BOUND` records wait to be written, further ones are counted and the number is written.
- No byte that passed through and no credential stands in a record.

It is this host's own record. The audit log in the guest, which is durable before the effect, is coworkd's.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from host_stub.logs import BoundedLog, compose_record

BOUND = 1024


class EgressRecords:
    """Owned by `HostEgress`; the log is the caller's to close."""

    def __init__(self, log: BoundedLog | None) -> None:
        self._log = log
        self._lost = 0
        self._send, self._receive = trio.open_memory_channel[str](BOUND if log is not None else math.inf)

    def tell(self, **fields: Any) -> None:
        """Give one record to be written."""
        if self._log is None:
            return
        try:
            self._send.send_nowait(compose_record({name: value for name, value in fields.items() if value is not None}))
        except trio.WouldBlock:
            self._lost += 1

    async def serve(self) -> None:
        """Write until cancelled; call `flush` afterwards."""
        while True:
            first = await self._receive.receive()
            with trio.CancelScope(shield=True):  # what was taken out is nowhere else
                await self._write(first)

    async def flush(self) -> None:
        """Write what was told and is not written yet, cancelled or not."""
        with trio.CancelScope(shield=True):
            await self._write(None)

    async def _write(self, first: str | None) -> None:
        lines = [] if first is None else [first]
        while len(lines) < BOUND:
            try:
                lines.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                break
        if self._lost:
            lines.append(compose_record({"event": "lost", "records": self._lost}))
            self._lost = 0
        if lines and self._log is not None:
            await trio.to_thread.run_sync(self._log.write, lines)
