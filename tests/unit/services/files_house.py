"""Files over workers that are threads of the test, or hang, or die: what the tests of `services.files*` share."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, NotFound, Unavailable
from coworkd.model.launch import MountFolder, WorkerKind
from coworkd.model.names import OsBytes
from coworkd.model.policy import LimitsRequest
from coworkd.model.ports import MountedFolder, UnmountedFolder, WorkerHandle
from coworkd.model.session import SessionView
from coworkd.services.files import Files
from coworkd.workers.files import _Worker
from tests.unit.services.process_house import FakeAudit, settle
from tests.unit.services.stream_house import Data, Rig, rig


class FakeWorkers:
    """Implements `ports.FolderLauncherPort` for workers. `manner` of the next: they work, hang, or die at once."""

    def __init__(self) -> None:
        self.manner = "works"
        self.fails: CoworkError | None = None
        self.started: list[str | None] = []
        self.killed: list[int] = []
        self.peers: dict[int, socket.socket] = {}
        self.threads: list[threading.Thread] = []

    @property
    def generation(self) -> int:
        return 1

    async def start_worker(self, kind: WorkerKind, session: str | None = None, /) -> WorkerHandle:
        assert kind == "files"
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails
        self.started.append(session)
        number = len(self.started)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self.manner == "works":
            thread = threading.Thread(target=_work, args=(theirs,), daemon=True)
            thread.start()
            self.threads.append(thread)
        elif self.manner == "dies":
            theirs.close()
        else:
            self.peers[number] = theirs
        return WorkerHandle(worker=number, pid=1000 + number, socket=ours.detach())

    async def kill_worker(self, worker: int, /) -> None:
        await trio.lowlevel.checkpoint()
        self.killed.append(worker)
        peer = self.peers.pop(worker, None)
        if peer is not None:
            peer.close()

    async def mount_folder(self, request: MountFolder, /) -> MountedFolder:
        raise Unavailable("no folders here")

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        raise Unavailable("no folders here")

    async def own_mount(self, path: str, *, owned: bool) -> None:
        raise Unavailable("no mounts here")

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def _work(connection: socket.socket) -> None:
    with connection:
        _Worker(connection).run()


class Homes:
    """Implements `ports.SessionDirectory`: every name but `nobody` has a home of its own below `top`."""

    def __init__(self, top: Path) -> None:
        self.top = top

    async def open(self, name: str, /) -> SessionView:
        await trio.lowlevel.checkpoint()
        if name == "nobody":
            raise NotFound(f"there is no session {name!r}")
        home = self.top / name
        home.mkdir(exist_ok=True)
        return SessionView(
            name=name,
            uid=1001,
            gid=1001,
            home=bytes(home),
            profile="default",
            limits=LimitsRequest(),
            env={},
            folders=(),
        )

    open_for_command = open


class FilesHouse:
    """Files that are served, the streams of a link, and what was recorded."""

    def __init__(self, top: Path, streams: Rig) -> None:
        self.home = top / "work"
        self.audit = FakeAudit()
        self.launcher = FakeWorkers()
        self.rig = streams
        self.link = streams.link
        self.files = Files(
            sessions=Homes(top), launcher=self.launcher, audit=self.audit, streams=streams.streams
        )  # fmt: skip

    async def write(self, path: bytes, data: bytes, **fields: Any) -> calls.FileWritten:
        params = calls.FileWrite(**{"session": "work", "path": OsBytes(path), "data": data, **fields})
        return await self.files.write(params, self.link)

    async def read(self, path: bytes, **fields: Any) -> calls.FileData:
        return await self.files.read(calls.FileRead(**{"session": "work", "path": OsBytes(path), **fields}))

    async def upload(self, path: bytes, **fields: Any) -> str:
        params = calls.FileUpload(**{"session": "work", "path": OsBytes(path), **fields})
        return (await self.files.upload(params, self.link)).stream

    async def download(self, path: bytes, **fields: Any) -> calls.FileDownloadOpened:
        params = calls.FileDownload(**{"session": "work", "path": OsBytes(path), **fields})
        return await self.files.download(params, self.link)

    async def send(self, stream: str, data: bytes, offset: int = 0) -> int:
        params = calls.StreamWrite(stream=stream, offset=offset, data=data)
        return (await self.rig.streams.write(params, self.link)).offset

    async def close_write(self, stream: str) -> None:
        await self.rig.streams.close_write(calls.StreamCloseWrite(stream=stream), self.link)

    async def close(self, stream: str) -> None:
        await self.rig.streams.close(calls.StreamClose(stream=stream), self.link)

    async def told(self, stream: str) -> tuple[bytes, Data]:
        """All that comes on a stream until its end, and the end. The worker is a thread: real time passes."""
        data = bytearray()
        for _ in range(2000):
            for frame in self.link.take():
                assert frame.stream == stream
                data += frame.data
                if frame.eof:
                    return bytes(data), frame
            await settle()
        raise AssertionError("the stream has no end")


@asynccontextmanager
async def files_house(top: Path) -> AsyncIterator[FilesHouse]:
    """Files that are served, cancelled at the end; no thread of a worker stays."""
    async with rig() as streams:
        made = FilesHouse(top, streams)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(made.files.serve)
                yield made
                nursery.cancel_scope.cancel()
        finally:
            made.launcher.close()
