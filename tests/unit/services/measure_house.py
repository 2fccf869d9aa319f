"""A launcher whose `measure` worker is the real one, in a thread of this process: what tests of sessions on the disk share."""

from __future__ import annotations

import os
import socket
import threading

import trio

from coworkd.model.errors import Unavailable
from coworkd.model.launch import MountFolder, WorkerKind
from coworkd.model.ports import MountedFolder, UnmountedFolder, WorkerHandle
from coworkd.workers import measure


class WorkerLauncher:
    """Implements `ports.FolderLauncherPort` as far as workers go."""

    def __init__(self) -> None:
        self.generation = 1
        self.started = 0
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.error: Unavailable | None = None

    async def start_worker(self, kind: WorkerKind, session: str | None = None, /) -> WorkerHandle:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        assert (kind, session) == ("measure", None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.started += 1
        self.sockets.append(theirs)
        thread = threading.Thread(target=self._work, args=(theirs,), daemon=True)
        self.threads.append(thread)
        thread.start()
        return WorkerHandle(worker=self.started, pid=os.getpid(), socket=ours.detach())

    def _work(self, connection: socket.socket) -> None:
        with connection:
            measure.serve(connection)

    def kill(self) -> None:
        """The worker dies: nothing is answered any more."""
        self.sockets[-1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Wait for the workers, whose links are closed by now."""
        for thread in self.threads:
            thread.join(60)

    async def kill_worker(self, worker: int, /) -> None:
        raise NotImplementedError

    async def mount_folder(self, request: MountFolder, /) -> MountedFolder:
        raise NotImplementedError

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        raise NotImplementedError

    async def own_mount(self, path: str, *, owned: bool) -> None:
        raise NotImplementedError
