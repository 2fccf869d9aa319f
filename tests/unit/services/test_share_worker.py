"""The share worker, from coworkd's side: one mount, one worker, one deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from coworkd.model.errors import Unavailable
from coworkd.model.ports import WorkerHandle
from coworkd.model.share import MountShare, ShareMounted
from coworkd.services.share_worker import DEADLINE_S, ShareWorker
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.share import _decoder
from tests.unit.services.process_house import in_trio, jump, open_fds, settle

ASK = MountShare(id=0, kinds=("virtiofs",), tag="claudeshared", mount_point=b"/mnt/x")


class FakeLauncher:
    """Starts workers that are threads; `answer` is what each says, None for one that never does."""

    def __init__(self, answer: Callable[[Any], Any] | None) -> None:
        self.asked: list[Any] = []
        self.killed: list[int] = []
        self._answer = answer
        self._ends: list[threading.Thread | socket.socket] = []

    async def start_worker(self, kind: Any, session: str | None = None, /) -> WorkerHandle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.asked.append(kind)
        if self._answer is None:
            self._ends.append(theirs)
        else:
            thread = threading.Thread(target=self._serve, args=(theirs, self._answer))
            thread.start()
            self._ends.append(thread)
        return WorkerHandle(worker=7, pid=1, socket=ours.detach())

    async def kill_worker(self, worker: int, /) -> None:
        self.killed.append(worker)

    async def own_mount(self, path: str, *, owned: bool) -> None:
        self.asked.append((path, owned))

    def end(self) -> None:
        for end in self._ends:
            if isinstance(end, threading.Thread):
                end.join(60)
                assert not end.is_alive()
            else:
                end.close()

    def _serve(self, theirs: socket.socket, answer: Callable[[Any], Any]) -> None:
        with theirs:
            link = WorkerSocket(theirs, _decoder)
            received = link.receive()
            said = None if received is None else answer(received[0])
            if said is not None:
                link.send(said)
                link.receive()


def worker(answer: Callable[[Any], Any] | None) -> tuple[ShareWorker, FakeLauncher]:
    launcher = FakeLauncher(answer)
    return ShareWorker(launcher), launcher  # type: ignore[arg-type]  # mounts no folder


@in_trio
async def test_one_mount_has_a_worker_of_its_own_and_leaves_nothing() -> None:
    before = open_fds()
    made, launcher = worker(lambda ask: ShareMounted(id=ask.id, kind="virtiofs", already=False))
    answer = await made.mount(ASK)
    await made.own("/mnt/x")
    launcher.end()
    assert isinstance(answer, ShareMounted)
    assert launcher.asked == ["share", ("/mnt/x", True)]
    assert open_fds() == before


@in_trio
async def test_a_worker_that_dies_is_told() -> None:
    made, launcher = worker(lambda ask: None)
    with pytest.raises(Unavailable, match="does not answer"):
        await made.mount(ASK)
    launcher.end()


@in_trio
async def test_a_host_that_hangs_holds_its_worker_and_not_us() -> None:
    made, launcher = worker(None)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(Unavailable, match="its host does not answer"):
                await made.mount(ASK)

        nursery.start_soon(ask)
        await settle()
        jump(DEADLINE_S + 1)
    assert launcher.killed == [7]
    launcher.end()
