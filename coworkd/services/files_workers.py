"""The workers of `file.*`: one for each session in use, started when first needed, kept for a while, ended when it hangs.

Rules
- A worker that nobody uses is kept `IDLE_S`, and at most `IDLE_LIMIT` of them, the longest idle goes first. At most `LIMIT` live at all.
- An answer that does not come within the deadline (a share that hangs) ends the worker, with all it is doing; other sessions have others.
- A worker that died is replaced at the next call. A request that changes nothing is asked once more; another may have been done or not, and
  is answered so.
- `end_session` ends a session's worker at once, and whoever waits for it is told.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
import trio

from coworkd.model import files as words
from coworkd.model.errors import CoworkError, InternalError, LimitExceeded, MountFailed, Unavailable
from coworkd.model.ports import FolderLauncherPort, WorkerHandle
from coworkd.services.files_faults import compose_error
from coworkd.system.worker_link import WorkerLink

IDLE_S = 30.0
IDLE_LIMIT = 16
LIMIT = 48
"""The launcher has room for 64, those of other kinds included."""
DEADLINE_S = 10.0
_SWEEP_S = 5.0
_UNCHANGING = (words.ReadSome, words.LookAt, words.ListSome)
_decoder: msgspec.msgpack.Decoder[words.FromWorker] = msgspec.msgpack.Decoder(words.FromWorker)
_log = logging.getLogger("coworkd.files")


class Worker:
    """One worker of a session."""

    def __init__(self, session: str, handle: WorkerHandle) -> None:
        self.session = session
        self.pid = handle.pid
        self.number = handle.worker
        self.link: WorkerLink[words.FromWorker] = WorkerLink(handle.socket, decoder=_decoder)
        self.uses = 0
        self.idle_since = 0.0

    @property
    def lives(self) -> bool:
        return self.link.why is None


class FileWorkers:
    """All workers of `file.*`. `serve` owns their tasks."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher
        self._workers: dict[str, Worker] = {}
        self._starting: dict[str, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End who is idle for long. Never returns; cancelled, all workers end."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                while True:
                    await trio.sleep(_SWEEP_S)
                    now = trio.current_time()
                    for worker in [each for each in self._workers.values() if not each.uses]:
                        if now - worker.idle_since >= IDLE_S:
                            self._let_go(worker)
        finally:
            self._nursery = None
            for worker in list(self._workers.values()):
                self._let_go(worker)

    @property
    def count(self) -> int:
        return len(self._workers)

    @asynccontextmanager
    async def using(self, session: str) -> AsyncIterator[Worker]:
        """The session's worker, started where there is none; it stays while it is used. Raises `LimitExceeded`, `Unavailable`."""
        worker = await self._find(session)
        self.hold(worker)
        try:
            yield worker
        finally:
            self.release(worker)

    def hold(self, worker: Worker) -> None:
        """One more uses it, until `release`."""
        worker.uses += 1

    def release(self, worker: Worker) -> None:
        """One less uses it."""
        worker.uses -= 1
        worker.idle_since = trio.current_time()
        idle = sorted((each for each in self._workers.values() if not each.uses), key=lambda each: each.idle_since)
        for each in idle[: max(0, len(idle) - IDLE_LIMIT)]:
            self._let_go(each)

    async def ask(
        self, session: str, request: words.ToWorker, fds: Iterable[int] = (), *, deadline_s: float = DEADLINE_S
    ) -> words.FromWorker:
        """Have the session's worker do it. Raises what it says, `Unavailable` where it does not answer."""
        try:
            async with self.using(session) as worker:
                return await self.ask_of(worker, request, fds, deadline_s=deadline_s)
        except WorkerLost:
            if not isinstance(request, _UNCHANGING):
                raise
        async with self.using(session) as worker:
            return await self.ask_of(worker, request, fds, deadline_s=deadline_s)

    async def ask_of(
        self, worker: Worker, request: words.ToWorker, fds: Iterable[int] = (), *, deadline_s: float = DEADLINE_S
    ) -> words.FromWorker:
        """The same, of a worker that is used. Raises `WorkerLost` where it ended."""
        path = request.path.decode("utf-8", "replace")
        try:
            with trio.fail_after(deadline_s):
                answer, _ = await worker.link.ask(request, fds)
        except trio.TooSlowError:
            self.end(worker, f"it did not answer for {path} within {deadline_s:g} s")
            raise Unavailable(
                f"{path} did not answer within {deadline_s:g} s: the folder it lies in may hang; whether it was done is not known",
                session=worker.session,
                path=path,
            ) from None
        except ConnectionResetError as error:
            self._let_go(worker)
            raise WorkerLost(
                f"the worker for files of session {worker.session} ended while it was at {path}: look whether it was done, "
                "and try again",
                session=worker.session,
                path=path,
            ) from error
        if isinstance(answer, words.FileFault):
            raise compose_error(answer, worker.session)
        return answer

    def end(self, worker: Worker, why: str) -> None:
        """It hangs: end it for good, with all that it is doing."""
        _log.warning("the worker for files of session %s (pid %d) is ended: %s", worker.session, worker.pid, why)
        self._let_go(worker)

    def end_session(self, session: str) -> None:
        """The session closes. Calls and transfers of it are told."""
        worker = self._workers.get(session)
        if worker is not None:
            self._let_go(worker)

    # -- inside -------------------------------------------------------------------------------------------------

    async def _find(self, session: str) -> Worker:
        lock = self._starting.setdefault(session, trio.Lock())
        try:
            async with lock:
                worker = self._workers.get(session)
                if worker is None or not worker.lives:
                    worker = await self._start(session)
                return worker
        finally:
            if not lock.locked():
                self._starting.pop(session, None)

    async def _start(self, session: str) -> Worker:
        nursery = self._nursery
        if nursery is None:
            raise Unavailable("coworkd is starting or stopping; try again later")
        self._make_room()
        # Not to be left half-way: the answer brings a socket and names a process.
        with trio.CancelScope(shield=True):
            try:
                handle = await self._launcher.start_worker("files", session)
            except MountFailed as error:
                raise Unavailable(
                    f"the worker for files of session {session} could not be started ({error.message}): try again",
                    session=session,
                    errno=error.details.get("errno"),
                ) from error
            worker = Worker(session, handle)
            await nursery.start(worker.link.serve)
        worker.idle_since = trio.current_time()
        self._workers[session] = worker
        return worker

    def _make_room(self) -> None:
        if len(self._workers) < LIMIT:
            return
        idle = [each for each in self._workers.values() if not each.uses]
        if not idle:
            raise LimitExceeded(
                f"files of {LIMIT} sessions are being worked on: wait until something of it is done", limit=LIMIT
            )
        self._let_go(min(idle, key=lambda each: each.idle_since))

    def _let_go(self, worker: Worker) -> None:
        """Forget it, close its socket, and see to it that the process ends."""
        if self._workers.get(worker.session) is worker:
            del self._workers[worker.session]
        worker.link.close()
        if self._nursery is not None:
            self._nursery.start_soon(self._kill, worker)

    async def _kill(self, worker: Worker) -> None:
        try:
            await self._launcher.kill_worker(worker.number)
        except CoworkError as error:
            _log.debug("worker %d is gone with its launcher: %s", worker.number, error.message)


class WorkerLost(Unavailable):
    """The worker ended before it answered."""


def expect(answer: words.FromWorker, kind: type[words.Answered]) -> words.Answered:
    """The answer as the type it must have. Raises `InternalError`."""
    if not isinstance(answer, kind):
        raise InternalError(f"the worker for files answered with {type(answer).__name__} instead of {kind.__name__}")
    return answer
