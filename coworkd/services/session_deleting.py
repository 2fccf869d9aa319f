"""`session.delete`, and what deletes by itself: a link that goes takes its ephemeral sessions along, a restart finishes what was begun.

Rules: the record says `deleting` before anything goes, and goes last, so that what a crash or a full disk cuts short is seen and done
again. What a session held in folders on the session disk goes with it; what lies in the folders is the host's, and stays.
"""

from __future__ import annotations

import logging

import trio
from msgspec import structs

from coworkd.model.errors import CoworkError, InvalidState
from coworkd.model.ports import AuditPort, EventPort, FoldersPort, StorageGuard
from coworkd.model.session import RemovedSession
from coworkd.services.session_home import Homes
from coworkd.services.session_opening import Openings
from coworkd.services.session_table import SessionTable, in_thread

_log = logging.getLogger("coworkd.session")


class Deleting:
    """Takes sessions away. `serve` owns what is deleted by itself."""

    def __init__(
        self,
        *,
        table: SessionTable,
        homes: Homes,
        openings: Openings,
        folders: FoldersPort,
        audit: AuditPort,
        events: EventPort,
        storage: StorageGuard,
    ) -> None:
        self._table = table
        self._homes = homes
        self._openings = openings
        self._folders = folders
        self._audit = audit
        self._events = events
        self._storage = storage
        self._nursery: trio.Nursery | None = None
        self.ephemeral: set[str] = set()
        """Those whose link is there."""

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Finish what a crash interrupted, and own what comes. Never returns."""
        async with trio.open_nursery() as self._nursery:
            for record in list(self._table.records.values()):
                if record.state == "deleting":
                    self._nursery.start_soon(self.delete_quietly, record.name, "begun before a restart")
                elif record.ephemeral:
                    self._nursery.start_soon(self.delete_quietly, record.name, "its link went with a restart")
            task_status.started()
            await trio.sleep_forever()

    async def delete(self, name: str, *, force: bool, reason: str) -> RemovedSession:
        """In the session's turn. Raises `NotFound`, `InvalidState` if commands run and `force` is not given, `DiskFailed`."""
        record = self._table.find(name)
        if self._table.count(name) and not force:
            raise InvalidState(f"commands of session {name} still run; end them or use force", session=name)
        await self._audit.record(
            "session.delete", {"session": name, "uid": record.uid, "force": force, "reason": reason}
        )
        with trio.CancelScope(shield=True):
            await self._table.keep(structs.replace(record, state="deleting"))
            if self._table.processes is not None:
                await self._table.processes.end_session(name)
            await self._openings.close(name)
            await self._folders.forget(name)
            freed_bytes = await in_thread(self._homes.remove, name)
            await self._table.drop(name)
            self.ephemeral.discard(name)
        self._storage.freed(freed_bytes)
        self._events.publish("session.deleted", {"session": name, "freed_bytes": freed_bytes})
        return RemovedSession(name=name, freed_bytes=freed_bytes)

    def drop(self, name: str) -> None:
        """Its link is gone."""
        if self._nursery is not None:
            self._nursery.start_soon(self.delete_quietly, name, "its link is gone")

    async def delete_quietly(self, name: str, reason: str) -> None:
        """Wait for its turn; what fails is logged."""
        async with self._table.in_turn(name):
            if name not in self._table.records:
                return
            try:
                await self.delete(name, force=True, reason=reason)
            except CoworkError as error:
                _log.error("session %s could not be deleted: %s", name, error.message)
