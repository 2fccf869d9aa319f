"""`Stages` over real workers in threads, with fakes of who mounts folders: what its tests share."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from coworkd.model.calls import FolderChanges, FolderCommit, FolderCommitted, FolderDiscard, StagedChanges
from coworkd.model.errors import InvalidState, NotFound, Unavailable
from coworkd.model.launch import MountFolder, WorkerKind
from coworkd.model.names import OsBytes
from coworkd.model.policy import FolderMode
from coworkd.model.ports import AwayFolder, FolderTurn, MountedFolder, UnmountedFolder, WorkerHandle
from coworkd.model.session import RECORD_FORMAT, FolderGrant, SessionRecord
from coworkd.services.stages import Stages
from coworkd.workers import stage
from tests.unit.services.process_house import FakeAudit, FakeEvents

SESSION, FOLDER = "bob", "src"


class StageLauncher:
    """Implements `ports.FolderLauncherPort` as far as workers go; `serve` is what a worker runs."""

    def __init__(self) -> None:
        self.generation = 1
        self.started = 0
        self.killed: list[int] = []
        self.serve: Callable[[socket.socket], None] = stage.serve
        self.error: Unavailable | None = None
        self.sockets: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []

    async def start_worker(self, kind: WorkerKind, session: str | None = None, /) -> WorkerHandle:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        assert (kind, session) == ("stage", None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.started += 1
        self.sockets[self.started] = theirs
        self._threads.append(threading.Thread(target=self._work, args=(theirs, self.serve), daemon=True))
        self._threads[-1].start()
        return WorkerHandle(worker=self.started, pid=os.getpid(), socket=ours.detach())

    def _work(self, connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with connection:
            serve(connection)

    async def kill_worker(self, worker: int, /) -> None:
        await trio.lowlevel.checkpoint()
        self.killed.append(worker)

    def close(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    async def mount_folder(self, request: MountFolder, /) -> MountedFolder:
        raise NotImplementedError

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        raise NotImplementedError

    async def own_mount(self, path: str, *, owned: bool) -> None:
        raise NotImplementedError


class StageHouse:
    """Implements `ports.FolderHolds` and the part of `ports.SessionFolders` that stages need; `trace` is the order of effects."""

    def __init__(self, top: Path) -> None:
        self.source = top / "share" / "source"
        self.source.mkdir(parents=True)
        self.launcher = StageLauncher()
        self.audit = FakeAudit()
        self.events = FakeEvents()
        self.trace: list[str] = []
        self.mode: FolderMode = "staged"
        self.busy = False
        self.root = bytes(top / "share")
        self.state = top / "state" / "stages" / SESSION
        self.upper = Path()
        """What the session changed; known once the folder was mounted."""
        self.stages = Stages(str(top / "state"), launcher=self.launcher, audit=self.audit, events=self.events)
        self.stages.attach(self, self)

    def find(self, session: str, name: str, /) -> AwayFolder:
        if (session, name) != (SESSION, FOLDER):
            raise NotFound(f"session {session} has no folder {name!r}")
        grant = FolderGrant(name=name, source="/source", mode=self.mode)
        return AwayFolder(record=self.record(session), grant=grant, root=self.root, source=b"source")

    @asynccontextmanager
    async def away(self, session: str, name: str, /) -> AsyncIterator[AwayFolder]:
        if self.busy:
            raise InvalidState(f"folder {name!r} is in use")
        self.trace.append("away")
        self.audit.records.append(("away", {}))
        try:
            yield self.find(session, name)
        finally:
            self.trace.append("back")
            with trio.CancelScope(shield=True):
                await self.mount()

    def record(self, session: str, /) -> SessionRecord:
        uid = os.getuid()
        return SessionRecord(
            format=RECORD_FORMAT, name=session, uid=uid, gid=os.getgid(), profile="default", created_at=0, state="ready"
        )

    def turn(self, session: str, *, opened: bool) -> AbstractAsyncContextManager[FolderTurn]:
        raise NotImplementedError

    def is_open(self, session: str, /) -> bool:
        return True

    def commands(self, session: str, /) -> int:
        return 0

    async def mount(self) -> bytes:
        stage = await self.stages.prepare(SESSION, FOLDER, (self.root, b"source"))
        self.upper = Path(os.fsdecode(stage)) / "upper"
        return stage

    async def changes(self, **fields: Any) -> StagedChanges:
        return await self.stages.changes(FolderChanges(session=SESSION, name=FOLDER, **fields))

    async def commit(self, *paths: bytes, overwrite: bool = False) -> FolderCommitted:
        chosen = tuple(map(OsBytes, paths)) or None
        return await self.stages.commit(
            FolderCommit(session=SESSION, name=FOLDER, paths=chosen, overwrite=overwrite)
        )  # fmt: skip

    async def discard(self, *paths: bytes) -> int:
        chosen = tuple(map(OsBytes, paths)) or None
        return (await self.stages.discard(FolderDiscard(session=SESSION, name=FOLDER, paths=chosen))).discarded


@asynccontextmanager
async def open_house(top: Path) -> AsyncIterator[StageHouse]:
    """A house that serves, its folder mounted once and its baseline taken."""
    house = StageHouse(top)
    async with trio.open_nursery() as nursery:
        await nursery.start(house.stages.serve)
        yield house
        nursery.cancel_scope.cancel()
    house.launcher.close()


async def wait_for_baseline(house: StageHouse) -> None:
    """Until the file is there: a thread writes it."""
    path = trio.Path(house.upper.parent / "baseline")
    with trio.fail_after(1e9):
        while not await path.exists():
            await trio.lowlevel.checkpoint()
