"""The disk worker, from coworkd's side: one errand, one worker."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coworkd.model import disk
from coworkd.model.errors import DiskFailed, Unavailable
from coworkd.model.ports import WorkerHandle
from coworkd.services.storage_disk import DiskWorker
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.disk import _decoder
from tests.unit.services.process_house import in_trio, open_fds


class FakeLauncher:
    """Starts workers that are threads; `answer` is what each says, None for one that dies first."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.kinds: list[str] = []
        self.owned: list[tuple[str, bool]] = []
        self._answer = answer
        self._threads: list[threading.Thread] = []

    async def start_worker(self, kind: Any, session: str | None = None, /) -> WorkerHandle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kinds.append(kind)
        thread = threading.Thread(target=self._serve, args=(theirs,))
        thread.start()
        self._threads.append(thread)
        return WorkerHandle(worker=1, pid=1, socket=ours.detach())

    async def own_mount(self, path: str, *, owned: bool) -> None:
        self.owned.append((path, owned))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _serve(self, theirs: socket.socket) -> None:
        with theirs:
            link = WorkerSocket(theirs, _decoder)
            received = link.receive()
            if received is not None:
                answer = self._answer(received[0])
                if answer is not None:
                    link.send(answer)
                    link.receive()


def worker(answer: Callable[[Any], Any]) -> tuple[DiskWorker, FakeLauncher]:
    launcher = FakeLauncher(answer)
    return DiskWorker(launcher), launcher  # type: ignore[arg-type]  # mounts no folder


@in_trio
async def test_each_errand_has_a_worker_of_its_own_and_leaves_nothing() -> None:
    before = open_fds()
    up = disk.BroughtUp(id=1, state="ok", report="x" * 40_000)
    made, launcher = worker(
        lambda request: up if isinstance(request, disk.BringUp) else disk.Trimmed(id=request.id, trimmed_bytes=7)
    )
    assert await made.bring_up(disk.BringUp(id=1, kind="disk", mount_point=b"/s")) == up
    assert await made.trim("/s") == 7
    await made.own("/s")
    launcher.join()
    assert launcher.kinds == ["disk", "disk"]
    assert launcher.owned == [("/s", True)]
    assert open_fds() == before


@in_trio
async def test_what_travels_is_what_was_asked() -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        if isinstance(request, disk.FindDisk):
            return disk.DiskFound(id=request.id, found=True)
        return disk.Grown(id=request.id, before_bytes=1, after_bytes=2)

    made, launcher = worker(answer)
    ask = disk.BringUp(id=1, kind="loop", mount_point=os.fsencode("/ä"), loop_file=b"/f")
    assert (await made.find(ask)).found
    assert (await made.grow("/ä", 5)).after_bytes == 2
    launcher.join()
    assert seen[0].ask == ask
    assert (seen[1].mount_point, seen[1].size) == (os.fsencode("/ä"), 5)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (lambda request: disk.DiskRefused(id=request.id, errno=28, message="no room"), DiskFailed, "no room"),
        (lambda request: disk.Grown(id=request.id, before_bytes=1, after_bytes=1), Unavailable, "Grown"),
        (lambda request: None, Unavailable, "launcher's log"),
    ],
)
@in_trio
async def test_a_refusal_a_wrong_answer_and_none_are_told(answer: Any, error: type[Exception], said: str) -> None:
    before = open_fds()
    made, launcher = worker(answer)
    with pytest.raises(error, match=said):
        await made.trim("/s")
    launcher.join()
    assert open_fds() == before
