"""The update worker, from coworkd's side: one errand, one worker, one deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from coworkd.model import update
from coworkd.model.errors import DiskFailed, Unavailable
from coworkd.model.ports import WorkerHandle
from coworkd.services.updates_worker import DEADLINE_S, UpdateWorker
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.update import _decoder
from tests.unit.services.process_house import in_trio, jump, open_fds, settle

TRUST = update.Trust(keys=b"", architecture="x86_64", python="3.11", image_version="1.0")
VERIFY = update.VerifySlot(id=0, trust=TRUST, slots=b"/s", slot="a", version="9.1", contents=("code",), sha256="x")
LOOK = update.LookAtDisk(id=0, trust=TRUST, slots=b"/s", mount_point=b"/smol/bin")


class FakeLauncher:
    """Starts workers that are threads; `answer` is what each says, None for one that dies first."""

    def __init__(self, answer: Callable[[Any], Any] | None) -> None:
        self.kinds: list[str] = []
        self.killed: list[int] = []
        self._answer = answer
        self._threads: list[threading.Thread] = []
        self._silent: list[socket.socket] = []

    async def start_worker(self, kind: Any, session: str | None = None, /) -> WorkerHandle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kinds.append(kind)
        if self._answer is None:
            self._silent.append(theirs)
        else:
            thread = threading.Thread(target=self._serve, args=(theirs, self._answer))
            thread.start()
            self._threads.append(thread)
        return WorkerHandle(worker=7, pid=1, socket=ours.detach())

    async def kill_worker(self, worker: int, /) -> None:
        self.killed.append(worker)

    def end(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        for theirs in self._silent:
            theirs.close()

    def _serve(self, theirs: socket.socket, answer: Callable[[Any], Any]) -> None:
        with theirs:
            link = WorkerSocket(theirs, _decoder)
            received = link.receive()
            said = None if received is None else answer(received[0])
            if said is not None:
                link.send(said)
                link.receive()


def worker(answer: Callable[[Any], Any] | None) -> tuple[UpdateWorker, FakeLauncher]:
    launcher = FakeLauncher(answer)
    return UpdateWorker(launcher), launcher  # type: ignore[arg-type]  # mounts no folder


@in_trio
async def test_each_errand_has_a_worker_of_its_own_and_leaves_nothing() -> None:
    before = open_fds()
    made, launcher = worker(
        lambda request: (
            update.SlotVerified(id=request.id)
            if isinstance(request, update.VerifySlot)
            else update.DiskOffer(id=request.id, found=False)
        )
    )
    assert (await made.verify_slot(VERIFY)).why is None
    assert not (await made.look_at_disk(LOOK)).found
    launcher.end()
    assert launcher.kinds == ["update", "update"]
    assert open_fds() == before


@in_trio
async def test_what_the_system_refused_is_told() -> None:
    made, launcher = worker(lambda request: update.UpdateFailed(id=request.id, errno=28, message="no room"))
    with pytest.raises(DiskFailed, match="no room"):
        await made.look_at_disk(LOOK)
    launcher.end()


@pytest.mark.parametrize("answer", [lambda request: None, lambda request: update.DiskOffer(id=request.id, found=False)])
def test_one_that_dies_or_answers_something_else_is_not_there(answer: Callable[[Any], Any]) -> None:
    async def main() -> None:
        made, launcher = worker(answer)
        with pytest.raises(Unavailable):
            await made.verify_slot(VERIFY)
        launcher.end()

    trio.run(main)


@in_trio
async def test_one_that_hangs_is_killed() -> None:
    before = open_fds()
    made, launcher = worker(None)

    async def ask() -> None:
        with pytest.raises(Unavailable, match="do not answer within"):
            await made.look_at_disk(LOOK)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await settle()
        jump(DEADLINE_S + 1)
    assert launcher.killed == [7]
    launcher.end()
    assert open_fds() == before
