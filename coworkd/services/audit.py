"""The audit log as a service: durable before effect.

`record` returns when the record is on disk. Callers that wait at the same time share one fdatasync (group commit): the first
to get the writer's turn commits what all have queued. A record once begun is finished, cancelled or not.

It does not decide what is recorded (`auditlog.kinds` refuses what is not listed) and starts no task of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coworkd.auditlog import RotationLimits
from coworkd.model.calls import AuditRecords, AuditTail, AuditVerified


class AuditLog:
    """One open audit log. Implements `ports.AuditPort`; whoever opened it calls `close`."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        boot_id: str,
        version: str,
        limits: RotationLimits = RotationLimits(),
        clock: Callable[[], float] = time.time,
        on_degraded: Callable[[str | None], None] = lambda reason: None,
    ) -> AuditLog:
        """Open or make the log in `directory` and record `audit.opened`. Blocking: call it before trio runs, or in a thread.

        `on_degraded` is called, from a worker thread, with a reason when recording goes on with something wrong, with None when
        that is over. Raises `InvalidState` when another process has it open, `DiskFailed` when the disk refuses.
        """
        raise NotImplementedError

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        """Append one record; return when it is durable.

        Raises `DiskFailed` (nothing was recorded, the effect must not happen), `LimitExceeded` when too many wait,
        `InternalError` for a kind or field that is not listed.
        """
        raise NotImplementedError

    async def tail(self, params: AuditTail) -> AuditRecords:
        """The newest records, oldest first: at most `params.limit`, 1,000 and 3 MiB."""
        raise NotImplementedError

    async def verify(self) -> AuditVerified:
        """Read the whole log and prove the chain, up to the newest durable record of this moment."""
        raise NotImplementedError

    @property
    def records(self) -> int:
        """How many records this process has made durable."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the log go: what is queued was either committed or failed before. Idempotent."""
        raise NotImplementedError
