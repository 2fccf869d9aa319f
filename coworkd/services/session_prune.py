"""`session.prune`: deletes of a session what can be had again, and says what.

Rules
- Only what is named goes: `caches` and `tmp` are the directories of the tables below, `stages` what staged folders hold back that the
  session has no more. Work is never among them.
- An age and a size mean single files, but of a stage all of it: it goes whole, or not at all.
- The audit log has it before it is done. A dry run goes the same way, and tells exactly what would go.
- Commands may run meanwhile: what they put in is theirs, and a tool whose cache goes fetches again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from coworkd.model.calls_storage import Pruned, PruneWhat, SessionPrune, SessionPruned
from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes
from coworkd.model.ports import AuditPort, EventPort, StagePort, StorageGuard
from coworkd.model.session import SessionRecord
from coworkd.services.session_measuring import Measuring, Place
from coworkd.services.session_table import SessionTable, in_thread
from coworkd.services.session_usage import UsageMeter

ENTRIES_LIMIT = 1000
PATHS_LIMIT_BYTES = 1024 * 1024
"""Of all that is told: the answer fits into a message, whatever names sessions choose."""
CACHES = (
    b".cache",
    b".npm/_cacache",
    b".npm/_npx",
    b".npm/_logs",
    b".yarn/cache",
    b".yarn/berry/cache",
    b".local/share/pnpm/store",
    b".bun/install/cache",
    b".cargo/registry/cache",
    b".cargo/registry/src",
    b".cargo/git/checkouts",
    b"go/pkg/mod/cache",
    b".gradle/caches",
    b".m2/repository",
    b".ivy2/cache",
    b".nuget/packages",
    b".composer/cache",
    b".gem/specs",
    b".bundle/cache",
    b".ccache",
    b".node-gyp",
    b".electron",
)
"""Where package managers and build tools keep what they fetch again."""
TMP = (b"tmp", b".tmp", b".local/share/Trash")
_log = logging.getLogger("coworkd.session")


class _Total:
    """What came of it so far."""

    def __init__(self) -> None:
        self.bytes = 0
        self.files = 0
        self.left_out = 0
        self.entries: list[Pruned] = []
        self._paths_bytes = 0

    def add(self, entry: Pruned) -> None:
        if len(self.entries) < ENTRIES_LIMIT and self._paths_bytes + len(entry.path) <= PATHS_LIMIT_BYTES:
            self.entries.append(entry)
            self._paths_bytes += len(entry.path)
        else:
            self.left_out += 1


class Pruning:
    """The verb."""

    def __init__(
        self,
        *,
        table: SessionTable,
        meter: UsageMeter,
        measuring: Measuring,
        places: Callable[[str], tuple[Place, ...]],
        stages: StagePort,
        storage: StorageGuard,
        audit: AuditPort,
        events: EventPort,
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._meter = meter
        self._measuring = measuring
        self._places = places
        self._stages = stages
        self._storage = storage
        self._audit = audit
        self._events = events
        self._clock = clock

    async def prune(self, params: SessionPrune) -> SessionPruned:
        """Of one session or of all. Raises `NotFound`, `InvalidParams`, `DiskFailed`, `Unavailable`; what is gone by then is gone."""
        if params.older_than_s < 0 or params.larger_than_bytes < 0:
            raise InvalidParams("an age and a size are at least 0", key="older_than_s")
        if not params.what:
            raise InvalidParams("prune what? Name caches, tmp or stages", key="what")
        names = sorted(self._table.records) if params.session is None else [self._table.find(params.session).name]
        total = _Total()
        for name in names:
            record = self._table.records.get(name)
            if record is not None and record.state != "deleting":
                await self._prune(record, params, total)
        return SessionPruned(
            freed_bytes=total.bytes, files=total.files, entries=tuple(total.entries), left_out=total.left_out
        )

    async def _prune(self, record: SessionRecord, params: SessionPrune, total: _Total) -> None:
        name, before_bytes = record.name, total.bytes
        if not params.dry_run:
            await self._audit.record("session.prune", _audited(name, params))
        if places := _directories(params.what):
            await self._prune_home(name, places, params, total)
        if "stages" in params.what:
            await self._prune_stages(record, params, total)
        freed_bytes = total.bytes - before_bytes
        if not params.dry_run and freed_bytes:
            self._meter.forget(name)
            self._storage.freed(freed_bytes)
            self._events.publish("session.pruned", {"session": name, "freed_bytes": freed_bytes})

    async def _prune_home(self, name: str, places: tuple[bytes, ...], params: SessionPrune, total: _Total) -> None:
        home, *_ = self._places(name)
        done = await self._measuring.prune(
            home,
            places,
            before=self._clock() - params.older_than_s if params.older_than_s else 0,
            larger_than_bytes=params.larger_than_bytes,
            dry_run=params.dry_run,
            limit=ENTRIES_LIMIT,
        )
        total.bytes += done.size_bytes
        total.files += done.files
        total.left_out += done.left_out
        for entry in done.entries:
            told = Pruned(session=name, path=OsBytes(entry.path), bytes=entry.size_bytes, files=entry.files)
            total.add(told)

    async def _prune_stages(self, record: SessionRecord, params: SessionPrune, total: _Total) -> None:
        for root, name in self._places(record.name)[1:]:
            directory = os.path.join(root, name)
            async with self._table.in_turn(name):  # it is not opened meanwhile
                for folder in await in_thread(_list, directory):
                    if not any(grant.name == folder for grant in record.folders):
                        await self._drop_stage((directory, folder), name, params, total)

    async def _drop_stage(self, place: Place, name: str, params: SessionPrune, total: _Total) -> None:
        found = await self._measuring.measure(place)
        if found.size_bytes <= params.larger_than_bytes and params.larger_than_bytes:
            return
        if params.older_than_s and not await self._is_old(place, self._clock() - params.older_than_s):
            return
        if not params.dry_run:
            await self._stages.forget(name, place[1])
        total.bytes += found.size_bytes
        total.files += found.files
        path = OsBytes(b"mnt/" + os.fsencode(place[1]))
        total.add(Pruned(session=name, path=path, bytes=found.size_bytes, files=found.files))

    async def _is_old(self, place: Place, before: float) -> bool:
        """Whether nothing in a stage was touched since."""
        root, name = place

        async def count(before: float) -> int:
            pruned = await self._measuring.prune(
                (os.path.dirname(root), os.path.basename(root)),
                (os.fsencode(name),),
                before=before,
                larger_than_bytes=0,
                dry_run=True,
                limit=0,
            )
            return pruned.files if pruned.complete else -1

        old = await count(before)
        return old >= 0 and old == await count(0)


def _directories(what: tuple[PruneWhat, ...]) -> tuple[bytes, ...]:
    return (*(CACHES if "caches" in what else ()), *(TMP if "tmp" in what else ()))


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _audited(name: str, params: SessionPrune) -> dict[str, object]:
    return {
        "session": name,
        "what": list(params.what),
        "older_than_s": params.older_than_s,
        "larger_than_bytes": params.larger_than_bytes,
    }
