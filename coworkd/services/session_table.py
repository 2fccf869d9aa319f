"""Which sessions there are: their records, in memory and on disk, and whose turn it is. What every verb of sessions works on.

Rules
- What is on disk comes first: a record counts when it is durable.
- One verb at a time works on a session; different sessions do not wait for each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from coworkd.model.errors import InvalidState, NotFound
from coworkd.model.names import parse_session_name
from coworkd.model.ports import ProcessDirectory
from coworkd.model.session import SessionInfo, SessionRecord
from coworkd.sandbox.tree import sandbox_home
from coworkd.services.session_home import Homes
from coworkd.services.session_records import RecordStore
from coworkd.services.session_recovery import Finding, Found, Recovery, plan_recovery

_T = TypeVar("_T")


class SessionTable:
    """The records by name. `load` before anything else."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.records: dict[str, SessionRecord] = {}
        self.locks: dict[str, trio.Lock] = {}
        self.processes: ProcessDirectory | None = None
        """Who knows the commands; None for nobody yet."""
        self.findings: tuple[Finding, ...] = ()
        """What was not as it was left, at the last `load`."""

    async def load(self, homes: Homes, now: float) -> None:
        """Find out which sessions there are. Raises `DiskFailed`."""
        recovery = await in_thread(_recover, self._store, homes, now)
        self.records, self.findings = recovery.records, recovery.findings

    @property
    def uids(self) -> set[int]:
        """Every number that is a session's, or was until its home has gone over."""
        taken = {uid for uid in self._store.reserved.values() if uid is not None}
        for record in self.records.values():
            taken.add(record.uid)
            taken.update(record.reown_from)
        return taken

    def refuse_reserved(self, name: str) -> None:
        """Raises `InvalidState` for a session whose record is a later coworkd's, or cannot be read."""
        if name in self._store.reserved:
            raise InvalidState(self._store.refusal_of_reserved(name), session=name)

    async def keep(self, record: SessionRecord) -> None:
        """Make it durable, and count it. Raises `DiskFailed`; the old one then stands."""
        await in_thread(self._store.save, record)
        self.records[record.name] = record

    async def drop(self, name: str) -> None:
        """Forget it, on disk and here. Raises `DiskFailed`."""
        await in_thread(self._store.remove, name)
        self.records.pop(name, None)

    def find(self, name: str) -> SessionRecord:
        """Raises `InvalidParams`, `NotFound`, `InvalidState` for one that is a later coworkd's."""
        record = self.records.get(name)
        if record is None:
            parse_session_name(name)
        self.refuse_reserved(name)
        if record is None:
            raise NotFound(f"there is no session {name!r}; make it with session.ensure", session=name)
        return record

    def find_ready(self, name: str) -> SessionRecord:
        """Raises `InvalidState` for one that is half made or half gone, and as `find` does."""
        record = self.find(name)
        if record.state == "deleting":
            raise InvalidState(f"session {name} is being deleted; where that failed, delete it again", session=name)
        if record.state != "ready" or record.reown_from:
            raise InvalidState(f"session {name} is {told_state(record)}: call session.ensure again", session=name)
        return record

    @asynccontextmanager
    async def in_turn(self, name: str) -> AsyncIterator[None]:
        """No other verb works on the session meanwhile."""
        lock = self.locks.setdefault(name, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nobody waits for it: what is kept does not grow with the names there ever were
                self.locks.pop(name, None)

    @property
    def busy(self) -> set[str]:
        """Those a verb works on now."""
        return {name for name, lock in self.locks.items() if lock.locked()}

    def count(self, name: str) -> int:
        """How many commands of it run."""
        return self.processes.count(name) if self.processes is not None else 0

    def info(self, record: SessionRecord) -> SessionInfo:
        """A session as the host sees it."""
        return SessionInfo(
            name=record.name,
            uid=record.uid,
            gid=record.gid,
            home=sandbox_home(record.name).decode(),
            state=told_state(record),
            profile=record.profile,
            created_at=record.created_at,
            folders=record.folders,
            processes=self.count(record.name),
            paused=record.paused,
        )


def told_state(record: SessionRecord) -> str:
    """A session whose home still goes over to it is not ready, whatever it was before."""
    return "incomplete" if record.reown_from and record.state == "ready" else record.state


def _recover(store: RecordStore, homes: Homes, now: float) -> Recovery:
    homes.prepare()
    records = store.load()
    return plan_recovery(
        Found(
            records=records,
            reserved=store.reserved,
            homes=homes.scan(),
            owners=homes.other_owners(),
            ranges=homes.other_ranges(),
            now=now,
        )
    )


async def in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """The one place where sessions touch the disk; trio waits for the thread even if cancelled."""
    return await trio.to_thread.run_sync(call, *arguments)
