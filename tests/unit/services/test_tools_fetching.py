"""The `tool` worker, from coworkd's side: one fetch, one worker, and none left where the share hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from coworkd.model.errors import DeadlineExceeded, Unavailable
from coworkd.model.ports import WorkerHandle
from coworkd.model.tool import FetchTool, ToolAnswer, ToolFetched, ToolRequest
from coworkd.services.tools_fetching import Fetching
from coworkd.system.worker_socket import WorkerSocket
from tests.unit.services.process_house import open_fds

FETCHED = ToolFetched(id=1, size_bytes=1, entries=1, executables=(b"x",))
REQUEST = FetchTool(
    id=1,
    root=b"/share",
    source=b"agent",
    incoming=b"/in",
    file_name=b"agent",
    sha256="0" * 64,
    limit_bytes=1,
    limit_entries=1,
)


class FakeLauncher:
    """Starts workers that are threads; `answer` is what each says: None hangs until it is killed."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.kinds: list[str] = []
        self.killed: list[int] = []
        self._answer = answer
        self._threads: list[threading.Thread] = []

    async def start_worker(self, kind: Any, session: str | None = None, /) -> WorkerHandle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kinds.append(kind)
        thread = threading.Thread(target=self._serve, args=(theirs,))
        thread.start()
        self._threads.append(thread)
        return WorkerHandle(worker=9, pid=1, socket=ours.detach())

    async def kill_worker(self, worker: int, /) -> None:
        self.killed.append(worker)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _serve(self, theirs: socket.socket) -> None:
        with theirs:
            link = WorkerSocket(theirs, msgspec.msgpack.Decoder(ToolRequest))
            received = link.receive()
            if received is None:
                return
            answer = self._answer(received[0])
            if isinstance(answer, ToolFetched):
                link.send(answer)
            if answer != "dies":
                link.receive()


def fetch(answer: Callable[[Any], Any], *, timeout_s: float = 10.0) -> tuple[FakeLauncher, ToolAnswer | Exception]:
    launcher = FakeLauncher(answer)
    before = open_fds()
    outcome: ToolAnswer | Exception

    async def main() -> ToolAnswer:
        return await Fetching(launcher).fetch(REQUEST, timeout_s=timeout_s)  # type: ignore[arg-type]  # mounts no folder

    try:
        outcome = trio.run(main)
    except (DeadlineExceeded, Unavailable) as error:
        outcome = error
    launcher.join()
    assert open_fds() == before
    return launcher, outcome


def test_what_the_worker_says_is_the_answer() -> None:
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append(request)
        return FETCHED

    launcher, outcome = fetch(answer)
    assert (outcome, asked, launcher.kinds, launcher.killed) == (FETCHED, [REQUEST], ["tool"], [])


def test_a_share_that_hangs_costs_its_time_and_the_worker_is_killed() -> None:
    launcher, outcome = fetch(lambda _: None, timeout_s=0.01)
    assert isinstance(outcome, DeadlineExceeded)
    assert launcher.killed == [9]


def test_a_worker_that_dies_is_told() -> None:
    _, outcome = fetch(lambda _: "dies")
    assert isinstance(outcome, Unavailable)
    with pytest.raises(Unavailable, match="has ended"):
        raise outcome
