"""The audit log as a service: durable before effect.

`record` and `record_all` return when all is on disk; `record_nowait` returns at once, for who has something to do until then. A record
once queued is finished, cancelled or not. The disk is only touched in a worker thread (`audit_thread`), so one that stalls delays
records, not links.

It does not decide what may be recorded (`auditlog.kinds` refuses what is not listed), and starts no task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import trio

from coworkd.auditlog import Filter, RotationLimits, admit, tail, verify
from coworkd.model.calls import AuditRecords, AuditTail, AuditVerified
from coworkd.model.calls_audit import AuditExport, AuditPiece, AuditQuery
from coworkd.model.errors import DiskFailed, InvalidParams, Unavailable
from coworkd.model.ports import Recording
from coworkd.services.audit_export import read_piece
from coworkd.services.audit_files import AuditFiles, DiskCalls, Entry
from coworkd.services.audit_snapshot import Snapshot
from coworkd.services.audit_thread import AuditThread, SyncTimes, Waiting

TAIL_LIMIT = 1000
TAIL_LIMIT_BYTES = 3 * 1024 * 1024
"""Below the 4 MiB a guest may send in one message."""

_T = TypeVar("_T")


class AuditLog:
    """One open audit log; implements `ports.AuditPort`. Whoever opened it calls `close`."""

    def __init__(
        self,
        files: AuditFiles,
        *,
        clock: Callable[[], float] = time.time,
        on_degraded: Callable[[str | None], None] = lambda reason: None,
    ) -> None:
        """`files` is started and belongs to this log from here on. For `on_degraded` see `open`."""
        self._files = files
        self._clock = clock
        self._on_degraded = on_degraded
        self._told: str | None = None
        self._thread = AuditThread(files, settled=self._tell_degraded)
        self._closed = False
        self._tell_degraded()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        boot_id: str,
        version: str,
        limits: RotationLimits | None = None,
        clock: Callable[[], float] = time.time,
        on_degraded: Callable[[str | None], None] = lambda reason: None,
        disk: DiskCalls | None = None,
        more_room: Callable[[], bool] = lambda: False,
    ) -> AuditLog:
        """Open or make the log in `directory` and record `audit.opened`. Blocking; a few milliseconds.

        `on_degraded` is called, in trio's thread, with a reason when recording goes on although something is wrong, and
        with None when that is over. Raises `InvalidState` when another process has the log, `DiskFailed` when the disk
        refuses; nothing is left open then. For `more_room`, called in a worker thread, see `AuditFiles`.
        """
        files = AuditFiles(
            directory, boot_id=boot_id, limits=limits or RotationLimits(), disk=disk, more_room=more_room
        )
        try:
            files.start(at=clock(), version=version)
        except BaseException:
            files.close()
            raise
        return cls(files, clock=clock, on_degraded=on_degraded)

    @property
    def records(self) -> int:
        """How many records this process has made durable."""
        return self._thread.records

    @property
    def sync_times(self) -> SyncTimes:
        """What the disk took."""
        return self._thread.sync_times

    @property
    def head(self) -> tuple[int, str]:
        """`seq` and hash of the newest durable record."""
        return self._files.head.seq, self._files.head.hash

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        """Append one record; return when it is durable.

        Raises `DiskFailed` (it is not in the log, so the effect must not happen), `LimitExceeded` when `QUEUE_LIMIT`
        already wait, `Unavailable` after `close`, `InternalError` for a kind or field that is not listed. Cancellation:
        before it is queued nothing is written; after that the record is finished first.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._begin([(kind, fields)]).durable()

    def record_nowait(
        self, kind: str, fields: Mapping[str, Any], /, *, then: Callable[[], None] | None = None
    ) -> Recording:
        """See `ports.EarlyAudit`. Raises as `record`, but for what the disk says."""
        return self._begin([(kind, fields)], then)

    async def record_all(self, records: Sequence[tuple[str, Mapping[str, Any]]], /) -> None:
        """Append records in this order, next to each other; return when all are durable. Raises like `record`: none is in the log then."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if records:
            await self._begin(records).durable()

    def _begin(
        self, records: Sequence[tuple[str, Mapping[str, Any]]], then: Callable[[], None] | None = None
    ) -> Waiting:
        at = self._clock()
        waiting = Waiting([Entry(at=at, kind=kind, fields=admit(kind, fields)) for kind, fields in records], then)
        if self._closed:
            raise Unavailable("the audit log is closed: coworkd is shutting down")
        self._thread.append(waiting)
        return waiting

    async def tail(self, params: AuditTail) -> AuditRecords:
        """The newest records that fit, oldest first; at most 3 MiB of them, and `truncated` says if that cut some.

        Raises `InvalidParams` for a limit outside 1 to `TAIL_LIMIT`, `DiskFailed`.
        """
        return await self.query(AuditQuery(session=params.session, limit=params.limit))

    async def query(self, params: AuditQuery) -> AuditRecords:
        """The newest records that fit all that is given, oldest first. Bounds and errors are those of `tail`."""
        if not 1 <= params.limit <= TAIL_LIMIT:
            raise InvalidParams(f"limit must be 1 to {TAIL_LIMIT}, not {params.limit}", key="limit")
        wanted = Filter(
            session=params.session,
            process=params.process,
            kinds=params.kinds,
            refused_only=params.refused,
            since=params.since,
            until=params.until,
        )
        return await self._find(wanted, params.limit)

    async def export(self, params: AuditExport) -> AuditPiece:
        """The log's own bytes from a place on, for a copy that verifies like it. Raises `NotFound`, `OutOfRange`, `DiskFailed`."""
        snapshot = await self._snapshot()
        return await _read(snapshot, lambda: read_piece(snapshot, params))

    async def find(
        self, *, kinds: Sequence[str] = (), session: str | None = None, refused_only: bool = False, limit: int
    ) -> AuditRecords:
        """See `ports.AuditReader`; at most 3 MiB of records, and `truncated` says if that cut some."""
        return await self._find(Filter(session=session, kinds=tuple(kinds), refused_only=refused_only), limit)

    async def look_back(self, read: Callable[[Iterable[bytes]], _T], /) -> _T:
        """What `read` makes, in a thread, of all lines there are now, newest first. Raises `DiskFailed`."""
        snapshot = await self._snapshot()
        return await _read(snapshot, lambda: read(snapshot.lines_backwards()))

    async def _find(self, wanted: Filter, limit: int) -> AuditRecords:
        snapshot = await self._snapshot()

        def read() -> tuple[tuple[dict[str, Any], ...], bool]:
            return tail(snapshot.lines_backwards(), wanted, limit=limit, limit_bytes=TAIL_LIMIT_BYTES)

        records, truncated = await _read(snapshot, read)
        return AuditRecords(records=records, truncated=truncated)

    async def verify(self) -> AuditVerified:
        """Prove the chain from its first record to the newest durable one of this moment, which this process remembers.

        Raises `DiskFailed` where the files cannot be read; what is wrong inside them is `problem`.
        """
        snapshot = await self._snapshot()
        verdict = await _read(snapshot, lambda: verify(snapshot.chunks()))
        problem = verdict.problem
        if problem is None and verdict.head != snapshot.head.hash:
            problem = (
                f"record {snapshot.head.seq} was written, but the log ends with {verdict.last}: its end was cut off"
            )
        return AuditVerified(
            ok=problem is None,
            records=verdict.records,
            first=verdict.first,
            last=verdict.last,
            head=verdict.head,
            problem=problem,
        )

    def close(self) -> None:
        """Let the log go; later records are refused. Call it when no `record` is under way. Idempotent."""
        self._closed = True
        self._thread.close()
        self._files.close()

    def _tell_degraded(self) -> None:
        problems = self._files.problems
        reason = "; ".join(problems.values()) if problems else None
        if reason != self._told:
            self._told = reason
            self._on_degraded(reason)

    async def _snapshot(self) -> Snapshot:
        if self._closed:
            raise Unavailable("the audit log is closed: coworkd is shutting down")
        return await self._thread.snapshot()


async def _read(snapshot: Snapshot, work: Callable[[], _T]) -> _T:
    """Run `work` in a thread; the snapshot is closed there, whatever happens."""

    def run() -> _T:
        try:
            return work()
        except OSError as error:
            raise DiskFailed(f"the audit log cannot be read: {error.strerror}", errno=error.errno) from error
        finally:
            snapshot.close()

    with trio.CancelScope(shield=True):
        found = await trio.to_thread.run_sync(run)
    return found  # noqa: RET504 (the scope could swallow the return, says mypy)
