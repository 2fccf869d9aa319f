"""The load of a soak: workers that start commands of every kind and know how each must end.

Rules
- Each worker has a client of its own, whose link is made again when it is lost; what it does is done again from the beginning where its
  call was lost on the way, under a name that tells whether it was done.
- Every command that was started is accounted for: `as expected`, `killed by us` (a fault that told so before), `interrupted` (a one-shot,
  or a start, whose coworkd went meanwhile). Everything else is `wrong`, and fails the soak.
- At a look all of them stand still, with no command and no stream open.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from msgspec import structs

from coworkd.client import aio
from coworkd.client.aio import AsyncClient
from coworkd.client.aio_process import AsyncProcess
from coworkd.model.errors import CoworkError, InvalidState, NotFound, Unavailable
from coworkd.model.policy import FolderMode
from coworkd.model.process import Exit, ExitRecord
from tests.root.live import exited
from tests.root.servers import dns

RECONNECT_S, STAND_S = 60.0, 120.0
GIVE_UP_TRIES = 5
KILLED = Exit(code=None, signal="KILL", reason="signaled")
ENDED = Exit(code=None, signal="KILL", reason="killed")
LINES = 30_000
OUT = [
    *(
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--retry",
        "8",
        "--retry-all-errors",
        "--retry-delay",
        "1",
    ),
    f"http://index.{dns.DOMAIN}/",
]
_WANTED = hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, LINES + 1))).hexdigest()
_numbers = itertools.count(1)


class Load:
    """All workers of one soak, and what they share with its faults."""

    def __init__(self, uri: str, seed: int, folder: Path, *, way_out: bool) -> None:
        self.uri = uri
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.doomed: set[str] = set()
        """Processes that a fault is about to kill, or has killed."""
        self.folder = folder
        self.clients: list[AsyncClient] = []
        self.doing: dict[int, str] = {}
        self.last_fault = (0.0, "nothing")
        self.seed = seed
        self._way_out = way_out
        self._going = trio.Event()
        self._standing = 0
        self._stopping = False
        self._workers = 0

    async def run(self) -> None:
        """Work until `stop`."""
        kinds: list[Callable[[Worker], Awaitable[None]]] = [
            runs,
            runs,
            streams,
            streams,
            shells,
            reads,
            stalls,
            folders,
            files,
        ]
        if self._way_out:
            kinds.append(goes_out)
        self._workers = len(kinds)
        async with trio.open_nursery() as nursery:
            for number, kind in enumerate(kinds):
                nursery.start_soon(self._work, kind, f"soak-{number % 3}", number)

    def blame(self, what: str) -> None:
        """Something is wrong; said with the fault it comes behind."""
        when, fault = self.last_fault
        self.wrong.append(f"{trio.current_time() - when:.2f} s after {fault}: {what}")

    def go(self) -> None:
        self._going.set()

    async def stand(self) -> bool:
        """Return once no worker does anything; False where one does not come to an end, which is `wrong`."""
        self._going = trio.Event()
        with trio.move_on_after(STAND_S):
            while self._standing < self._workers:
                await trio.sleep(0.05)
        if self._standing < self._workers:
            self.wrong += [f"stuck for {STAND_S} s: {what}" for what in self.doing.values()]
        return self._standing == self._workers

    def stop(self) -> None:
        """While all stand: they end."""
        self._stopping = True
        self._going.set()

    async def _work(self, kind: Callable[[Worker], Awaitable[None]], session: str, number: int) -> None:
        async with await aio.connect(self.uri, reconnect_s=RECONNECT_S) as client:
            self.clients.append(client)
            worker = Worker(self, client, session, number)
            while True:
                self._standing += 1
                await self._going.wait()
                self._standing -= 1
                if self._stopping:
                    return
                self.doing[number] = f"{kind.__name__} in {session}"
                try:
                    await kind(worker)
                except Unavailable as error:
                    self.outcomes["interrupted"] += 1
                    await worker.give_up()
                    if client.broken is not None:
                        self.blame(f"{kind.__name__}: the link did not come back: {error.message}")
                        return
                except CoworkError as error:
                    self.blame(f"{kind.__name__}: {type(error).__name__}: {error.message}")
                del self.doing[number]


class Worker:
    """One worker's client, session and chance."""

    def __init__(self, load: Load, client: AsyncClient, session: str, number: int) -> None:
        self.load = load
        self.number = number
        self.id = ""
        self.client = client
        self.session = session
        self.chance = random.Random(f"{load.seed} {number}")

    def fresh_id(self) -> str:
        id = f"s{os.getpid()}-{next(_numbers)}"
        self.load.doing[self.number] += f", {id}"
        self.id = id
        return id

    async def give_up(self) -> None:
        """End what a lost call may have started; another fault may come in between."""
        for _ in range(GIVE_UP_TRIES if self.id else 0):
            with contextlib.suppress(Unavailable):
                with contextlib.suppress(NotFound):
                    await self.client.process_kill(process=self.id, grace_s=0)
                    await self.client.process_wait(process=self.id)
                    await self.client.process_forget(process=self.id)
                return

    def took(self, what: str, process: str, ended: ExitRecord, wanted: Exit, *, right: bool = True) -> None:
        """Account for a command that ended."""
        found = structs.replace(
            ended.exit, inferred=False
        )  # the lab has no proc connector: it is the first network namespace's
        if found == wanted and right:
            self.load.outcomes["as expected"] += 1
        elif process in self.load.doomed and found in (KILLED, ENDED):
            self.load.outcomes["killed by us"] += 1
        else:
            self.load.blame(f"{what} {process} ended as {ended.exit}, output {ended.output}, right {right}")
        self.load.doomed.discard(process)


async def runs(worker: Worker) -> None:
    word = str(worker.chance.random())
    ran = await worker.client.run(worker.session, ["echo", word])
    if ran.exit != exited(0) or ran.stdout != f"{word}\n".encode():
        worker.load.blame(f"run of echo ended as {ran.exit} with {ran.stdout!r}")
    worker.load.outcomes["as expected"] += 1


async def streams(worker: Worker) -> None:
    """All lines, in order, whatever happens to links and to coworkd meanwhile."""
    id, code = worker.fresh_id(), worker.chance.randrange(100)
    argv = ["sh", "-c", f"i=0; while [ $i -lt 3 ]; do sleep 0.1; i=$((i+1)); done; seq 1 {LINES}; exit {code}"]
    process = await worker.client.start(worker.session, argv, id=id)
    said = hashlib.sha256()
    async for piece in process:
        if piece.stream == "stdout":
            said.update(piece.data)
    ended = await process.wait()
    await forget(process)
    worker.took("stream", id, ended, exited(code), right=said.hexdigest() == _WANTED)


async def shells(worker: Worker) -> None:
    id, number = worker.fresh_id(), worker.chance.randrange(10**6)
    process = await worker.client.start(worker.session, ["sh"], tty=(24, 80), id=id)
    said = b""
    try:
        await process.write_stdin(b"echo $((%d*3)); exit 5\n" % number)
    except InvalidState:
        # It was killed, or coworkd was, and then nobody knows how much of this it has read.
        worker.load.doomed.add(id)
        await process.kill(0)
    async for piece in process:
        said += piece.data
    ended = await process.wait()
    await forget(process)
    worker.took("shell", id, ended, exited(5), right=b"%d\r\n" % (number * 3) in said)


async def reads(worker: Worker) -> None:
    """What is written comes back."""
    id, data = worker.fresh_id(), worker.chance.randbytes(100_000)
    process = await worker.client.start(worker.session, ["cat"], stdin=True, id=id)
    collected = await process.communicate(data)
    await forget(process)
    worker.took("cat", id, collected.exit, exited(0), right=collected.streams["stdout"] == data)


async def stalls(worker: Worker) -> None:
    """A reader that stops, of a command that floods; then it is killed."""
    id = worker.fresh_id()
    process = await worker.client.start(worker.session, ["yes"], id=id)
    await process.read()
    await trio.sleep(0.5)
    await process.kill(0)
    ended = await process.wait()
    await process.detach()
    await forget(process)
    worker.took("yes", id, ended, ENDED)


async def folders(worker: Worker) -> None:
    mode: FolderMode = worker.chance.choice(("ro", "rw", "rwd"))
    with contextlib.suppress(NotFound):  # it is still there where the last look was interrupted
        await worker.client.folder_unmount(session=worker.session, name="soaked")
    await worker.client.folder_mount(
        session=worker.session, name="soaked", source=str(worker.load.folder), mode=mode, required=True
    )
    ran = await worker.client.run(worker.session, ["cat", f"/sessions/{worker.session}/mnt/soaked/file"])
    if ran.stdout != b"in the folder\n":
        worker.load.blame(f"folder {mode}: {ran.exit} {ran.stderr!r}")
    with contextlib.suppress(NotFound):  # said again to the next coworkd, after the one before had done it
        await worker.client.folder_unmount(session=worker.session, name="soaked")
    worker.load.outcomes["as expected"] += 1


async def files(worker: Worker) -> None:
    data = worker.chance.randbytes(worker.chance.choice((0, 1, 70_000, 2_000_000)))
    name = f"file-{worker.chance.randrange(4)}"
    await worker.client.upload(worker.session, name, data)
    got = b""
    async with await worker.client.download(worker.session, name) as download:
        async for piece in download:
            got += piece
    if got != data:
        worker.load.blame(f"a file of {len(data)} bytes came back as {len(got)}")
    worker.load.outcomes["as expected"] += 1


async def goes_out(worker: Worker) -> None:
    """Through the proxy to a server of the lab's; coworkd-egress may be away for a moment."""
    ran = await worker.client.run(worker.session, OUT)
    if ran.exit != exited(0) or ran.stdout[-3:] != b"200":
        worker.load.blame(f"curl ended as {ran.exit} with {ran.stdout!r} {ran.stderr[-300:]!r}")
    worker.load.outcomes["as expected"] += 1


async def forget(process: AsyncProcess) -> None:
    """A call that is said again after its link was lost finds it forgotten."""
    with contextlib.suppress(NotFound):
        await process.forget()
