"""What sessions take on the disk, put together: usage, the watch over their limits, prune and retention.

Its verbs are those of its parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from coworkd.config import RetentionConfig
from coworkd.model.ports import AuditPort, EventPort, GroupsPort, PolicyPort, QuotaPort, StagePort, StorageGuard
from coworkd.services.session_measuring import Measuring
from coworkd.services.session_prune import Pruning
from coworkd.services.session_retention import Retention
from coworkd.services.session_usage import UsageMeter
from coworkd.services.session_usage_watch import UsageWatch
from coworkd.services.sessions import Sessions


class SessionDisk:
    """From its construction on it may refuse commands; `serve` owns its tasks."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        retention: RetentionConfig,
        measuring: Measuring,
        policies: PolicyPort,
        quota: QuotaPort,
        groups: GroupsPort,
        stages: StagePort,
        storage: StorageGuard,
        audit: AuditPort,
        events: EventPort,
        clock: Callable[[], float] = time.time,
    ) -> None:
        table, uses = sessions.table, sessions.uses
        self.meter = UsageMeter(
            table=table,
            uses=uses,
            places=sessions.places,
            measuring=measuring,
            policies=policies,
            quota=quota,
            groups=groups,
            clock=clock,
        )
        self.watch = UsageWatch(table=table, meter=self.meter, quota=quota, audit=audit, events=events)
        self.pruning = Pruning(
            table=table,
            meter=self.meter,
            measuring=measuring,
            places=sessions.places,
            stages=stages,
            storage=storage,
            audit=audit,
            events=events,
            clock=clock,
        )
        self.retention = Retention(
            retention,
            table=table,
            uses=uses,
            meter=self.meter,
            delete=sessions.delete_idle,
            audit=audit,
            events=events,
            clock=clock,
        )
        sessions.guard(self.watch)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch.serve)
            nursery.start_soon(self.retention.serve)
            task_status.started()
