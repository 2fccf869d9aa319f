"""The one thread that touches the audit log's disk, and the queue before it.

Rules
- One piece of work at a time. The end of one begins the next, in trio's thread: no task waits for that, so a record costs the loop no
  turn but the one that tells who waits for it.
- The thread is the log's own from the first piece of work to `close`: one out of trio's cache is given its work, its name and its end
  by a dozen calls more, between a command and its record.
- Who records while the disk works shares the next fdatasync (group commit): a batch is all that was queued meanwhile, at most
  `BATCH_LIMIT` records; what was queued together stays together.
- Readers' snapshots go first: they take a moment.
- Who asked for it is told in that thread as soon as the record is durable (`then`), before the loop hears of it.

It does not judge records. Source: queue.SimpleQueue, trio.lowlevel.TrioToken.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, NoReturn, TypeVar

import trio

from coworkd.model.errors import CoworkError, DiskFailed, LimitExceeded, Unavailable
from coworkd.services.audit_files import AuditFiles, Entry
from coworkd.services.audit_snapshot import Snapshot
from coworkd.system.coming import Coming

QUEUE_LIMIT = 1024
BATCH_LIMIT = 256

_T = TypeVar("_T")
_Done = Callable[[Callable[[], _T]], None]
"""Is given what gives the answer, or raises what the work raised."""
_Order = tuple[Callable[[], Any], Callable[[Callable[[], Any]], None]]
"""The work, and who is given its answer, in the thread."""

_log = logging.getLogger("coworkd.audit")


class Waiting:
    """Records that are queued together: all of them will be durable, or none. Implements `ports.Recording`."""

    __slots__ = ("entries", "settled", "then")

    def __init__(self, entries: Sequence[Entry], then: Callable[[], None] | None = None) -> None:
        """`then` is called from the thread, once they are durable; it must not block."""
        self.entries = entries
        self.then = then
        self.settled: Coming[CoworkError | None] = Coming()

    async def durable(self) -> None:
        error = await self.settled.wait()
        if error is not None:
            raise type(error)(error.message, **error.details) from error


class SyncTimes:
    """What the disk took for each group of records."""

    __slots__ = ("most_s", "times", "took_s")

    def __init__(self) -> None:
        self.times = 0
        self.took_s = 0.0
        self.most_s = 0.0

    def add(self, took_s: float) -> None:
        self.times += 1
        self.took_s += took_s
        self.most_s = max(self.most_s, took_s)


class AuditThread:
    """Commits what is queued, and takes snapshots between. All calls are made from trio's thread."""

    def __init__(self, files: AuditFiles, *, settled: Callable[[], None]) -> None:
        """`settled` is called after each batch, whatever became of it."""
        self._files = files
        self._settled = settled
        self._queue: list[Waiting] = []
        self._asked: deque[_Done[Snapshot]] = deque()
        self._working = False
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.records = 0
        self.sync_times = SyncTimes()

    @property
    def queued(self) -> int:
        """How many wait that the disk has not begun with."""
        return len(self._queue)

    def append(self, waiting: Waiting) -> None:
        """Raises `LimitExceeded` when `QUEUE_LIMIT` wait already."""
        if len(self._queue) >= QUEUE_LIMIT:
            raise LimitExceeded(f"{QUEUE_LIMIT} audit records wait for the disk; try again later")
        self._queue.append(waiting)
        self._go_on()

    async def snapshot(self) -> Snapshot:
        """The log between two batches, the caller's to close; it comes to who is cancelled too. Raises `DiskFailed`."""
        answer: Coming[Callable[[], Snapshot]] = Coming()
        self._asked.append(answer.come)
        self._go_on()
        return (await answer.wait())()

    def close(self) -> None:
        """End the thread; nothing may be asked of it any more. Idempotent."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread = None

    def _go_on(self) -> None:
        if self._working:
            return
        if self._asked:
            self._work(self._files.snapshot, self._asked.popleft())
        elif self._queue:
            batch, records = self._take_batch()
            self._work(partial(self._commit, batch), partial(self._committed, batch, records, time.monotonic()))

    def _commit(self, batch: Sequence[Waiting]) -> None:
        """In the thread."""
        self._files.commit([entry for waiting in batch for entry in waiting.entries])
        for waiting in batch:
            if waiting.then is not None:
                try:
                    waiting.then()
                except Exception:  # noqa: BLE001 - the record is there, whatever they make of it
                    _log.exception("who waited for a record failed")

    def _take_batch(self) -> tuple[list[Waiting], int]:
        """What is committed next, as many as fit and at least one; and how many records that is."""
        taken, records = 0, 0
        for waiting in self._queue:
            more = len(waiting.entries)
            if taken and records + more > BATCH_LIMIT:
                break
            taken, records = taken + 1, records + more
        batch, self._queue = self._queue[:taken], self._queue[taken:]
        return batch, records

    def _work(self, work: Callable[[], _T], done: _Done[_T]) -> None:
        self._working = True
        if self._thread is None:
            thread = threading.Thread(target=_serve, args=(self._orders,), name="coworkd-audit", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                _log.error("the audit log waits: %s", error)
                self._worked(done, _refuse)
                return
            self._thread = thread
        token = trio.lowlevel.current_trio_token()
        self._orders.put((work, lambda answer: token.run_sync_soon(self._worked, done, answer)))

    def _worked(self, done: _Done[_T], answer: Callable[[], _T]) -> None:
        self._working = False
        done(answer)
        self._go_on()

    def _committed(self, batch: Sequence[Waiting], records: int, began: float, answer: Callable[[], None]) -> None:
        error: CoworkError | None = None
        try:
            answer()
        except CoworkError as refused:
            error = refused
        except Exception:  # noqa: BLE001 - nobody may take it for recorded
            _log.exception("the audit log could not be written")
            error = DiskFailed("the record was not written, by a fault of coworkd's")
        else:
            self.records += records
        self.sync_times.add(time.monotonic() - began)
        for waiting in batch:
            waiting.settled.come(error)
        self._settled()


def _serve(orders: SimpleQueue[_Order | None]) -> None:
    """The thread: one order after the other, until None."""
    while (order := orders.get()) is not None:
        work, tell = order
        try:
            answer = partial(_give, work())
        except BaseException as error:  # noqa: BLE001 - whoever asked raises it
            answer = partial(_raise, error)
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            tell(answer)
        del order, work, tell, answer  # what they hold has to wait for no other order


def _give(value: _T) -> _T:
    return value


def _raise(error: BaseException) -> NoReturn:
    raise error


def _refuse() -> NoReturn:
    raise Unavailable("there is no thread for the audit log to be had; try again")
