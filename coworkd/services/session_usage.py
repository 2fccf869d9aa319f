"""What sessions take on the session disk: `session.usage`, and what others of this room ask of it.

Rules
- Where the kernel counts (project quota), its numbers are asked for; else the `measure` worker goes through the trees.
- A measurement is kept with its time, and used again while it is young enough for who asks. Of all sessions at once, the oldest
  measurements are made anew first, within `ALL_BUDGET_S`; what there was no time for is told as it was, `measured_at` 0 for never.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec import Struct

from coworkd.model.calls_storage import SessionUsage, SessionUsageParams, SessionUsages
from coworkd.model.errors import CoworkError, DiskFailed
from coworkd.model.limits import GroupUsage
from coworkd.model.measure import TreeMeasured
from coworkd.model.ports import GroupsPort, PolicyPort, QuotaPort
from coworkd.model.session import SessionRecord
from coworkd.services.session_measuring import MEASURE_DEADLINE_S, Measuring, Place
from coworkd.services.session_table import SessionTable, in_thread
from coworkd.services.session_uses import Uses

YOUNG_S = 10.0
"""How old a measurement may be for who asks for one session."""
ALL_YOUNG_S = 300.0
ALL_BUDGET_S = 20.0


class Measured(Struct, frozen=True, kw_only=True):
    """One measurement."""

    home_bytes: int
    stage_bytes: int
    files: int
    complete: bool
    at: float

    @property
    def bytes(self) -> int:
        return self.home_bytes + self.stage_bytes


NEVER = Measured(home_bytes=0, stage_bytes=0, files=0, complete=False, at=0.0)


class UsageMeter:
    """Measures, and remembers."""

    def __init__(
        self,
        *,
        table: SessionTable,
        uses: Uses,
        places: Callable[[str], tuple[Place, ...]],
        measuring: Measuring,
        policies: PolicyPort,
        quota: QuotaPort,
        groups: GroupsPort,
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._uses = uses
        self._places = places
        self._measuring = measuring
        self._policies = policies
        self._quota = quota
        self._groups = groups
        self._clock = clock
        self._known: dict[str, Measured] = {}

    async def usage(self, params: SessionUsageParams) -> SessionUsages:
        """Of one session, or of all by name. Raises `NotFound`, `DiskFailed`, `Unavailable`."""
        if params.session is not None:
            record = self._table.find(params.session)
            await self.measured(record, young_s=YOUNG_S)
            return SessionUsages(sessions=(await self._tell(record),))
        await self.measure_all(young_s=ALL_YOUNG_S)
        return SessionUsages(sessions=tuple([await self._tell(record) for record in self._records()]))

    async def measured(
        self, record: SessionRecord, *, young_s: float, deadline_s: float = MEASURE_DEADLINE_S
    ) -> Measured:
        """A measurement that is at most `young_s` old. Raises `DiskFailed`, `Unavailable`."""
        known = self._known.get(record.name)
        if known is not None and self._clock() - known.at <= young_s:
            return known
        home, *others = self._places(record.name)
        if self._quota.kind == "project":
            home_bytes, files, complete = await self._counted(record)
        else:
            found = await self._measuring.measure(home, deadline_s=deadline_s)
            home_bytes, files, complete = found.size_bytes, found.files, found.complete
        stages: list[TreeMeasured] = [await self._measuring.measure(place, deadline_s=deadline_s) for place in others]
        self._known[record.name] = measured = Measured(
            home_bytes=home_bytes,
            stage_bytes=sum(stage.size_bytes for stage in stages),
            files=files + sum(stage.files for stage in stages),
            complete=complete and all(stage.complete for stage in stages),
            at=self._clock(),
        )
        return measured

    async def measure_all(self, *, young_s: float) -> bool:
        """Whether there was time for all of them; what cannot be measured is passed over."""
        self._known = {name: known for name, known in self._known.items() if name in self._table.records}
        due = sorted(self._records(), key=lambda record: self.last(record.name).at)
        with trio.move_on_after(ALL_BUDGET_S) as budget:
            for record in due:
                try:
                    await self.measured(record, young_s=young_s, deadline_s=ALL_BUDGET_S / 2)
                except CoworkError:
                    continue
        return not budget.cancelled_caught

    def last(self, name: str) -> Measured:
        """What was last measured, however old."""
        return self._known.get(name, NEVER)

    def forget(self, name: str) -> None:
        """It has changed by much: measure anew when asked."""
        self._known.pop(name, None)

    async def limit_bytes(self, record: SessionRecord) -> int:
        """How much it may take; 0: as much as there is."""
        return (await self._policies.effective(record.profile, record.limits)).profile.limits.disk_max_bytes

    def _records(self) -> list[SessionRecord]:
        return [self._table.records[name] for name in sorted(self._table.records)]

    async def _counted(self, record: SessionRecord) -> tuple[int, int, bool]:
        try:
            counted_bytes, files = await in_thread(self._quota.usage, record.uid)
        except OSError as error:
            raise DiskFailed(
                f"the disk does not tell what session {record.name} takes: {error.strerror}", errno=error.errno
            ) from error
        return counted_bytes, files, True

    async def _group(self, name: str) -> GroupUsage | None:
        try:
            return (await self._groups.measure(name, None)).usage
        except CoworkError:  # it is not open, or this kernel counts nothing
            return None

    async def _tell(self, record: SessionRecord) -> SessionUsage:
        known = self.last(record.name)
        try:
            limit_bytes = await self.limit_bytes(record)
        except CoworkError:  # its profile is gone: nothing can run in it, and what it takes is still told
            limit_bytes = 0
        return SessionUsage(
            session=record.name,
            home_bytes=known.home_bytes,
            stage_bytes=known.stage_bytes,
            files=known.files,
            complete=known.complete,
            limit_bytes=limit_bytes,
            measured_at=known.at,
            idle_since=self._uses.idle_since(record),
            group=await self._group(record.name),
        )
