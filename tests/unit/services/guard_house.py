"""Guarding over fakes: file systems at the other end of real sockets, and a watch worker."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import trio

from coworkd.model import folder as words
from coworkd.model import watch as watch_words
from coworkd.model.errors import Unavailable
from coworkd.model.launch import MountFolder, WorkerKind
from coworkd.model.ports import MountedFolder, UnmountedFolder, WorkerHandle
from coworkd.services.activity import Activity
from coworkd.services.approvals import Approvals
from coworkd.services.guarding import Guarding
from coworkd.services.guarding_callers import Callers
from coworkd.services.guarding_trees import Trees
from coworkd.system import packet
from coworkd.system.process_command import Identity
from tests.unit.services.egress_house import FakeAuditLog
from tests.unit.services.process_house import FakeEvents, FakeLink, open_fds, settle_threads

_encode = msgspec.msgpack.Encoder().encode


class Far:
    """The far end of a conversation: what was heard, and a mouth."""

    def __init__(self, kind: Any) -> None:
        near, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near_fd = near.detach()
        self.end.setblocking(False)
        self._decoder = msgspec.msgpack.Decoder(kind)

    def say(self, message: msgspec.Struct) -> None:
        data, ancillary, memfd = packet.pack(_encode(message))
        self.end.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)

    def hear(self) -> list[Any]:
        """All that was said since."""
        heard = []
        with contextlib.suppress(BlockingIOError):
            while data := self.end.recvmsg(*packet.RECEIVE_ARGUMENTS)[0]:
                heard.append(self._decoder.decode(data))
        return heard

    @property
    def is_let_go(self) -> bool:
        """Whether the near end is closed."""
        try:
            return self.end.recv(65536) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        self.end.close()


class FakeFileSystem(Far):
    """A guarded folder's, which answers its rule."""

    def __init__(self) -> None:
        super().__init__(words.ToFolder)
        self.rules: list[words.Rule] = []
        self.verdicts: list[tuple[int, bool]] = []
        self.is_mute = False

    def work(self) -> None:
        """Hear what was said, and answer it."""
        for message in self.hear():
            if isinstance(message, words.Rule):
                self.rules.append(message)
                if not self.is_mute:
                    self.say(words.Ruled(id=message.id))
            elif isinstance(message, words.Verdict):
                self.verdicts.append((message.ask, message.allow))
            else:
                self.say(words.Listed(id=message.id, paths=(message.path + b"/x",), more=False))

    def mounted(self) -> MountedFolder:
        return MountedFolder(mounted_as="guarded", degraded=(), socket=self.near_fd)


PLAIN = MountedFolder(mounted_as="idmapped", degraded=(), socket=None)


class FakeWorkers:
    """Implements `ports.FolderLauncherPort` for whoever starts workers."""

    generation = 1

    def __init__(self) -> None:
        self.workers: list[Far] = []
        self.error: Unavailable | None = None

    async def start_worker(self, kind: WorkerKind, session: str | None = None, /) -> WorkerHandle:
        assert (kind, session) == ("watch", None)
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.workers.append(Far(watch_words.ToWatcher))
        return WorkerHandle(worker=len(self.workers), pid=1, socket=self.workers[-1].near_fd)

    async def mount_folder(self, request: MountFolder, /) -> MountedFolder:
        raise AssertionError("a guard mounts nothing")

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        raise AssertionError("a guard mounts nothing")

    async def kill_worker(self, worker: int, /) -> None:
        raise AssertionError("a worker ends with its socket")

    async def own_mount(self, path: str, *, owned: bool) -> None:
        raise AssertionError("a guard mounts nothing")


class FakeProcesses:
    """Implements `ports.CallerDirectory`: pid 50 is the init of bob's p1, 60 that of alice's p2."""

    only: str | None = None
    asked = 0

    def find_by_ancestor(self, pid: int, /) -> tuple[str, str] | None:
        return {50: ("bob", "p1"), 60: ("alice", "p2")}.get(pid)

    def only_one_at(self, session: str, at: float, /) -> str | None:
        self.asked += 1
        return self.only


class GuardHouse:
    """Everything of guarding, and what is around it. Pid 70 is a process of p1, 90 one of the host, any other is gone."""

    def __init__(self) -> None:
        self.audit = FakeAuditLog()
        self.events = FakeEvents()
        self.workers = FakeWorkers()
        self.processes = FakeProcesses()
        self.failed: list[tuple[str, str, str]] = []
        self.state: str | None = None
        self.approvals = Approvals(
            audit=self.audit,
            events=self.events,
            timeout_s=120.0,
            clock=lambda: 1000 + trio.current_time(),
            identify=lambda pid: Identity(pid, 1),
            look=lambda pid: None,
        )
        activity = Activity(audit=self.audit, events=self.events)
        callers = Callers(read_ancestry=lambda pid: {70: (70, 50), 90: (90,)}.get(pid, ()))
        trees = Trees(launcher=self.workers, activity=activity, callers=callers, on_state=self.tell_state)
        self.guarding = Guarding(
            approvals=self.approvals, activity=activity, trees=trees, callers=callers, events=self.events
        )
        self.guarding.attach(self.processes, lambda *failed: self.failed.append(failed))
        self.link = FakeLink()

    def tell_state(self, reason: str | None) -> None:
        self.state = reason

    def told(self, name: str) -> list[dict[str, Any]]:
        return [event.params for event in self.events.published if event.name == name]


@contextlib.asynccontextmanager
async def guard_house() -> AsyncIterator[GuardHouse]:
    """No descriptor may be left of it."""
    before = open_fds()
    house = GuardHouse()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.guarding.serve)
        yield house
        nursery.cancel_scope.cancel()
    for worker in house.workers.workers:
        worker.close()
    assert open_fds() <= before


async def settled(*file_systems: FakeFileSystem, turns: int = 3) -> None:
    """Let both ends say what they have to say."""
    for _ in range(turns):
        await settle_threads()
        for each in file_systems:
            each.work()
    await settle_threads()
