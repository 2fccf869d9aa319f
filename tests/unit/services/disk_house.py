"""A session service with all that looks at the disk, over fakes, a temporary disk and a real `measure` worker in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import trio

from coworkd.auditlog.kinds import admit
from coworkd.config import RetentionConfig
from coworkd.model.calls_storage import SessionPrune, SessionPruned, SessionRetained, SessionRetention
from coworkd.services.session_disk import SessionDisk
from coworkd.services.session_measuring import Measuring
from tests.unit.services.measure_house import WorkerLauncher
from tests.unit.services.session_house import SessionHouse


class FakeQuota:
    """Implements `ports.QuotaPort`."""

    def __init__(self) -> None:
        self.kind: Literal["project", "watched"] = "watched"
        self.used: dict[int, tuple[int, int]] = {}

    def set_limit(self, path: str, project: int, limit_bytes: int, limit_files: int) -> None:
        raise NotImplementedError

    def usage(self, project: int) -> tuple[int, int]:
        if project not in self.used:
            raise ProcessLookupError(3, "No such process")
        return self.used[project]


class DiskHouse(SessionHouse):
    """`disk` is the service; the limit of a session is a profile's 1 GiB (`session_house.profile`)."""

    def __init__(self, directory: Path, retention: RetentionConfig) -> None:
        super().__init__(directory)
        self.homes.stages_dir = str(directory / "stages")
        self.workers = WorkerLauncher()
        self.measuring = Measuring(self.workers)
        self.quota = FakeQuota()
        self.disk = SessionDisk(
            self.sessions,
            retention=retention,
            measuring=self.measuring,
            policies=self.policies,
            quota=self.quota,
            groups=self.groups,
            stages=self.stages,
            storage=self.storage,
            audit=self.audit,
            events=self.events,
            clock=lambda: self.now,
        )

    async def prune(self, name: str | None = "bob", **fields: object) -> SessionPruned:
        return await self.disk.pruning.prune(SessionPrune(session=name, **fields))  # type: ignore[arg-type]

    async def retain(self, *, dry_run: bool = False) -> SessionRetained:
        return await self.disk.retention.retention(SessionRetention(dry_run=dry_run))

    def write(self, path: str, size: int = 10_000, *, name: str = "bob") -> Path:
        made = self.home(name) / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(bytes(size))
        return made

    def events_of(self, name: str) -> list[dict[str, object]]:
        return [dict(event.params) for event in self.events.published if event.name == name]


@asynccontextmanager
async def open_disk_house(directory: Path, retention: RetentionConfig | None = None) -> AsyncIterator[DiskHouse]:
    house = DiskHouse(directory, retention or RetentionConfig())
    await house.sessions.load()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.measuring.serve)
        yield house
        nursery.cancel_scope.cancel()
    house.workers.close()
    for kind, fields in house.audit.records:
        admit(kind, fields)
