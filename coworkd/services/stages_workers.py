"""The `stage` workers, from coworkd: a few of them, so that one share that hangs holds up nobody else's folder.

Rules
- At most `WORKER_LIMIT`, each with one request at a time; started when needed, let go after a while without work.
- A worker that says nothing for as long as its caller said hangs in a share: it is killed. So is one whose caller has gone.
- A request whose worker ends is told as `Unavailable`. Every request may be made again, and goes on from where it was.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TypeVar

import msgspec
import trio

from coworkd.model.errors import CoworkError, InternalError, Unavailable
from coworkd.model.ports import FolderLauncherPort, WorkerHandle
from coworkd.model.stage import FromStage, Progress, StageAnswer, StageRefused, ToStage
from coworkd.system.worker_link import WorkerLink

WORKER_LIMIT = 4
_IDLE_S = 60.0
_KILL_S = 5.0
_log = logging.getLogger("coworkd.folder")
_decoder: msgspec.msgpack.Decoder[FromStage] = msgspec.msgpack.Decoder(FromStage)
_A = TypeVar("_A")


class SourceSilent(Unavailable):
    """What the worker waits for in the source does not come."""


class _Worker:
    """One worker. `heard_at` is when it last said anything."""

    def __init__(self, handle: WorkerHandle) -> None:
        self.number = handle.worker
        self.heard_at = trio.current_time()
        self.idle_since = self.heard_at
        self.link: WorkerLink[FromStage] = WorkerLink(handle.socket, decoder=_decoder, on_notice=self._hear)

    def _hear(self, notice: FromStage, fds: list[int]) -> None:
        self.heard_at = trio.current_time()


class StageWorkers:
    """`serve` owns the workers; before that and after its end every request is `Unavailable`."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher
        self._nursery: trio.Nursery | None = None
        self._room = trio.CapacityLimiter(WORKER_LIMIT)
        self._idle: list[_Worker] = []

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns; the workers end with it."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                while True:
                    await trio.sleep(_IDLE_S)
                    self._let_go_of_idle()
        finally:
            self._nursery = None
            for worker in self._idle:
                worker.link.close()

    async def ask(self, request: ToStage, kind: type[_A], *, quiet_s: float) -> _A | StageRefused:
        """The answer. Raises `Unavailable` where the worker ends, `SourceSilent` where it says nothing for `quiet_s`.

        A cancellation ends the worker.
        """
        async with self._room:
            worker = await self._take()
            try:
                answer = await self._converse(worker, request, quiet_s)
            except BaseException:
                await self._end(worker)
                raise
            worker.idle_since = trio.current_time()
            self._idle.append(worker)
        if isinstance(answer, StageRefused):
            return answer
        if not isinstance(answer, kind):
            raise InternalError(f"a stage worker answered {type(request).__name__} with {type(answer).__name__}")
        return answer

    async def _converse(self, worker: _Worker, request: ToStage, quiet_s: float) -> StageAnswer:
        worker.heard_at = trio.current_time()
        answer: FromStage | None = None
        ended: ConnectionResetError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_quiet, worker, quiet_s, nursery.cancel_scope)
            try:
                answer, fds = await worker.link.ask(request)
                assert not fds
            except ConnectionResetError as error:
                ended = error
            nursery.cancel_scope.cancel()
        if ended is not None:
            raise Unavailable(
                "the worker of staged folders has ended on the way; each path is done or as it was: try again",
                reason=str(ended),
            ) from ended
        if answer is None or isinstance(answer, Progress):
            raise SourceSilent(
                f"the folder's source has not answered for {quiet_s:g} s; see that the share is there, and try again"
            )
        return answer

    async def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.link.why is None:
                return worker
        nursery = self._nursery
        if nursery is None:
            raise Unavailable("coworkd is not ready to look after staged folders; try again")
        worker = _Worker(await self._launcher.start_worker("stage"))
        if self._nursery is not nursery:
            worker.link.close()
            raise Unavailable("coworkd is ending and looks after staged folders no more; ask the next one")
        await nursery.start(worker.link.serve)
        return worker

    async def _end(self, worker: _Worker) -> None:
        worker.link.close()
        with trio.move_on_after(_KILL_S, shield=True), contextlib.suppress(CoworkError):
            await self._launcher.kill_worker(worker.number)

    def _let_go_of_idle(self) -> None:
        now = trio.current_time()
        for worker in [each for each in self._idle if now - each.idle_since >= _IDLE_S]:
            self._idle.remove(worker)
            worker.link.close()


async def _cancel_when_quiet(worker: _Worker, quiet_s: float, scope: trio.CancelScope) -> None:
    due = worker.heard_at + quiet_s
    while due > trio.current_time():
        await trio.sleep_until(due)
        due = worker.heard_at + quiet_s
    scope.cancel()
