"""What came over a restart of coworkd, told once: in the audit log, as an event, in `hello`, by doctor and in the log of the day.

Rules
- It is told where another coworkd was there before this one with the same launcher, or commands were lost with the launcher before;
  the first of a boot has nothing to tell.
- What was lost is said in words, and that nothing was, too. A log that refuses the record keeps nobody from hearing it.

Not here: the taking over itself (`process_adopting`, `sessions.reopen`, `guarding`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from coworkd.model.calls import Finding
from coworkd.model.errors import CoworkError
from coworkd.model.launch import TakenOver
from coworkd.model.ports import AuditPort, EventPort
from coworkd.model.restart import Adoption, Restarted

_NAMED = 16
_log = logging.getLogger("coworkd.app")


class Recovery:
    """`tell` when everything is served again."""

    def __init__(self, *, audit: AuditPort, events: EventPort, clock: Callable[[], float] = time.time) -> None:
        self._audit = audit
        self._events = events
        self._clock = clock
        self.restarted: Restarted | None = None

    async def tell(
        self,
        before: TakenOver | None,
        adoption: Adoption,
        *,
        not_reopened: Sequence[str],
        approvals: int,
        took_s: float,
    ) -> None:
        """`not_reopened` are sessions whose commands run and which cannot be served."""
        first = before is None or not before.supervisors_before
        lost = _say_lost(adoption, not_reopened, first=first)
        if first and not lost:
            return
        restarted = self.restarted = Restarted(
            at=self._clock(),
            took_s=took_s,
            running=adoption.running,
            ended=adoption.ended,
            one_shots=adoption.one_shots,
            sessions=0 if before is None else len(before.sessions),
            approvals=approvals,
            lost=lost,
        )
        fields = {name: getattr(restarted, name) for name in restarted.__struct_fields__ if name != "at"}
        try:
            await self._audit.record("daemon.recovered", fields)
        except CoworkError as error:
            _log.error("what came over the restart is not recorded: %s", error.message)
        self._events.publish("restarted", fields)
        (_log.warning if restarted.lost else _log.info)("%s", _say(restarted))

    def findings(self) -> tuple[Finding, ...]:
        """For doctor: nothing where this coworkd is the first."""
        restarted = self.restarted
        if restarted is None:
            return ()
        if not restarted.lost:
            return (Finding(check="restart", state="ok", detail=_say(restarted), remedy=""),)
        remedy = "coworkctl audit query --kind daemon.recovered; what was lost does not come back by itself"
        return (Finding(check="restart", state="degraded", detail=_say(restarted), remedy=remedy),)


def _say_lost(adoption: Adoption, not_reopened: Sequence[str], *, first: bool) -> tuple[str, ...]:
    """`first` of those that had this launcher."""
    lost = [f"session {name} could not be taken over" for name in not_reopened]
    if adoption.unread_notes:
        lost.append(f"the deadlines of {adoption.unread_notes} commands are not known any more")
    if adoption.lost:
        named, more = adoption.lost[:_NAMED], len(adoption.lost) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        lost.append(f"{len(adoption.lost)} commands, with the launcher before: {', '.join(named)}{rest}")
    if adoption.unsearched and first:
        lost.append(
            "which commands ran with the launcher before is not wholly known: the audit log was not read that far"
        )
    return tuple(lost)


def _say(restarted: Restarted) -> str:
    kept = (
        f"taken over in {restarted.took_s:.2f} s: {restarted.running} commands that run, {restarted.ended} that have ended,"
        f" {restarted.sessions} sessions, {restarted.approvals} approvals"
    )
    orphans = f"; {restarted.one_shots} one-shots without a caller ended" if restarted.one_shots else ""
    return f"{kept}{orphans}; lost: {'; '.join(restarted.lost) or 'nothing'}"
