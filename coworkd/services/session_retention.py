"""The retention policy: sessions that go because they are old, many or large, as `[retention]` in coworkd.toml says. Off by default.

Rules
- Only what the policy names goes: first what has been idle for longer than `max_age_days`, then the longest idle of more than
  `max_sessions`, then the longest idle of more than `max_total_bytes` altogether.
- Never one in which commands run, that is not ready, or that goes with its link anyway.
- It is said first: an event `session.retention` and an audit record, and after `announce_s` it goes, if the policy still names it and
  it was not used meanwhile. After a restart it is said again.
- What could not be measured counts with what is known of it, so that nothing goes for a size that was guessed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio
from msgspec import Struct

from coworkd.config import RetentionConfig
from coworkd.model.calls_storage import RetentionEntry, SessionRetained, SessionRetention
from coworkd.model.errors import CoworkError
from coworkd.model.ports import AuditPort, EventPort
from coworkd.services.session_table import SessionTable
from coworkd.services.session_usage import UsageMeter
from coworkd.services.session_uses import Uses

ROUND_S = 3600.0
_MEASURE_YOUNG_S = 6 * 3600.0
_DAY_S = 24 * 3600.0
_log = logging.getLogger("coworkd.session")


class Candidate(Struct, frozen=True, kw_only=True):
    """A session that may go."""

    name: str
    idle_since: float
    bytes: int


class Named(Struct, frozen=True, kw_only=True):
    """A session the policy names, and why."""

    name: str
    reason: str
    bytes: int
    idle_since: float


def plan_retention(
    policy: RetentionConfig, candidates: Iterable[Candidate], *, kept: int, kept_bytes: int, now: float
) -> tuple[Named, ...]:
    """Who goes, the longest idle first. `kept` and `kept_bytes` are those of sessions that never go, and count. Pure."""
    waiting = sorted(candidates, key=lambda each: (each.idle_since, each.name))
    count, total = kept + len(waiting), kept_bytes + sum(each.bytes for each in waiting)
    named = []
    for each in waiting:
        idle_s = now - each.idle_since
        if policy.max_age_days and idle_s > policy.max_age_days * _DAY_S:
            reason = f"idle for {idle_s / _DAY_S:.1f} days, more than {policy.max_age_days:g}"
        elif policy.max_sessions and count > policy.max_sessions:
            reason = f"the longest idle of {count} sessions, more than {policy.max_sessions}"
        elif policy.max_total_bytes and total > policy.max_total_bytes:
            reason = f"the longest idle of sessions of {total} bytes, more than {policy.max_total_bytes}"
        else:
            break  # whoever comes later was used later
        named.append(Named(name=each.name, reason=reason, bytes=each.bytes, idle_since=each.idle_since))
        count, total = count - 1, total - each.bytes
    return tuple(named)


class Retention:
    """The verb, and the policy at work: `serve`."""

    def __init__(
        self,
        policy: RetentionConfig,
        *,
        table: SessionTable,
        uses: Uses,
        meter: UsageMeter,
        delete: Callable[[str, str, float], Awaitable[bool]],
        audit: AuditPort,
        events: EventPort,
        clock: Callable[[], float],
    ) -> None:
        """`delete` takes name, reason and since when it has been idle, and tells whether it is gone: one that was used since is not."""
        self._policy = policy
        self._table = table
        self._uses = uses
        self._meter = meter
        self._delete = delete
        self._audit = audit
        self._events = events
        self._clock = clock
        self._announced: dict[str, tuple[float, float]] = {}
        """Name → when it was said, and since when it had been idle then."""
        self._turn = trio.Lock()

    @property
    def is_on(self) -> bool:
        policy = self._policy
        return bool(policy.max_age_days or policy.max_sessions or policy.max_total_bytes)

    async def serve(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(min(ROUND_S, self._policy.announce_s or ROUND_S))
            if self.is_on:
                try:
                    await self.retention(SessionRetention(dry_run=self._policy.dry_run))
                except CoworkError as error:
                    _log.error("the retention policy was not applied: %s", error.message)

    async def retention(self, params: SessionRetention) -> SessionRetained:
        """Say what the policy names; without `dry_run` announce it, and delete what was announced long enough ago. Raises `DiskFailed`."""
        async with self._turn:
            named = await self._plan()
            if params.dry_run:
                return SessionRetained(entries=tuple(_entry(each) for each in named))
            idle = {each.name: each.idle_since for each in named}
            self._announced = {name: told for name, told in self._announced.items() if idle.get(name) == told[1]}
            return SessionRetained(entries=tuple([await self._apply(each) for each in named]))

    async def _plan(self) -> tuple[Named, ...]:
        if not self.is_on:
            return ()
        if self._policy.max_total_bytes:
            await self._meter.measure_all(young_s=_MEASURE_YOUNG_S)
        candidates, kept, kept_bytes = [], 0, 0
        for record in self._table.records.values():
            size = self._meter.last(record.name).bytes
            busy = self._table.count(record.name) or record.name in self._table.busy
            if busy or record.ephemeral or record.state != "ready" or record.reown_from:
                kept, kept_bytes = kept + 1, kept_bytes + size
            else:
                idle_since = self._uses.idle_since(record)
                candidates.append(Candidate(name=record.name, idle_since=idle_since, bytes=size))
        return plan_retention(self._policy, candidates, kept=kept, kept_bytes=kept_bytes, now=self._clock())

    async def _apply(self, named: Named) -> RetentionEntry:
        now = self._clock()
        goes_at = self._announced.get(named.name, (now, 0))[0] + self._policy.announce_s
        if named.name not in self._announced:
            await self._announce(named, goes_at)
            self._announced[named.name] = (now, named.idle_since)
        if now < goes_at:
            return _entry(named, goes_at=goes_at)
        deleted = await self._delete(named.name, f"retention: {named.reason}", named.idle_since)
        self._announced.pop(named.name, None)
        return _entry(named, deleted=deleted)

    async def _announce(self, named: Named, goes_at: float) -> None:
        told = {"session": named.name, "reason": named.reason, "bytes": named.bytes, "goes_at": goes_at}
        await self._audit.record("session.retention", told)
        _log.warning("session %s goes in %.0f s: %s", named.name, self._policy.announce_s, named.reason)
        self._events.publish("session.retention", told)


def _entry(named: Named, *, goes_at: float | None = None, deleted: bool = False) -> RetentionEntry:
    return RetentionEntry(session=named.name, reason=named.reason, bytes=named.bytes, deleted=deleted, goes_at=goes_at)
