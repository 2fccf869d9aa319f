"""When each session was last used: when a command last began in it.

It is known at once, and written into the record now and then, so that starting a command stays fast: what a crash loses is at most
`WRITE_EVERY_S` of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio
from msgspec import structs

from coworkd.model.errors import CoworkError
from coworkd.model.session import SessionRecord
from coworkd.services.session_table import SessionTable

WRITE_EVERY_S = 600.0
_LOOK_EVERY_S = 60.0
_log = logging.getLogger("coworkd.session")


class Uses:
    """`touch` never blocks; `serve` writes."""

    def __init__(self, table: SessionTable, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._touched: dict[str, float] = {}
        """What is not written yet."""

    def touch(self, name: str) -> None:
        """A command begins in it."""
        self._touched[name] = self._clock()

    def idle_since(self, record: SessionRecord) -> float:
        """When it was last used, or made; now where a command runs in it."""
        if self._table.count(record.name):
            return self._clock()
        return max(record.created_at, record.used_at, self._touched.get(record.name, 0.0))

    async def serve(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(_LOOK_EVERY_S)
            await self.write_due()

    async def write_due(self) -> None:
        """Write what was last written long enough ago."""
        for name, used_at in list(self._touched.items()):
            record = self._table.records.get(name)
            if record is None or record.state == "deleting":
                del self._touched[name]
            elif used_at - record.used_at >= WRITE_EVERY_S:
                await self._write(name)

    async def _write(self, name: str) -> None:
        async with self._table.in_turn(name):
            record = self._table.records.get(name)
            if record is None or record.state == "deleting":
                return
            used_at = self._touched.pop(name)
            try:
                await self._table.keep(structs.replace(record, used_at=used_at))
            except CoworkError as error:
                _log.warning("the use of session %s is not written: %s", name, error.message)
                self._touched.setdefault(name, used_at)
