"""One life of a guest, from its start to its end, as a state machine without I/O: news and times in, states and sentences out.

    STARTING ─connected▶ CONNECTED ─ready▶ READY ⇄ DEGRADED            (what `ready` says of `degraded`)
        │                    └──────┬─────────┘
        │                     hung, or lost for LOST_S ▶ HUNG ─answers again▶ what it was
        └──────────────┬────────────┴──────────────────────┘
                  the back end: ended ▶ STOPPED, CRASHED, or to be started again

Rules
- Being late is no fault. A guest nobody heard of yet has no limit at all: it is said every `LATE_S` (later less often) that it is waited
  for, with the last line of its serial console, and whenever it comes it is taken.
- A guest that was there and is not any more is given `LOST_S` for a link to come again, then it is hung; hung for `HUNG_S`, it is
  overdue: the machine ends it and starts it again.
- What was asked for is no crash: a life that ends after a stop was asked for has stopped, however it ended.
- Times are of a clock that stands still while the host sleeps (trio's), so no guest is overdue because a lid was closed.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from host_stub.bundle_settings import RestartMode
from host_stub.guest_events import describe_event
from host_stub.words import Ended, GuestNews, MachineState

LATE_S = 15.0
VERY_LATE_S, VERY_LATE_AFTER_S = 300.0, 600.0
"""Said less often after that long: what is said must not push what happened out of the ring of events."""
LOST_S = 30.0
HUNG_S = 30.0
RESTARTS = 3
RESTART_WINDOW_S = 600.0
MAX_DEGRADED, NAME_CHARACTERS, REASON_CHARACTERS = 32, 64, 500
"""So much is kept of what a guest says of itself."""

_UP = (MachineState.READY, MachineState.DEGRADED)


class Said(NamedTuple):
    """Something to tell: as an event, and the state the machine is in from now on where that changed."""

    message: str
    state: MachineState | None = None
    details: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never changed


class Life:
    """Not thread-safe; nothing blocks. `at` is seconds of one monotonic clock."""

    def __init__(self, at: float) -> None:
        self.state = MachineState.STARTING
        self.greeted = False
        """Whether it was ever heard of: from then on its silence means something."""
        self.degraded: dict[str, str] = {}
        self.boot_id = ""
        self.version = ""
        self.ready_after_s: float | None = None
        self._began = at
        self._late_told = at
        self._lost_at: float | None = None
        self._hung_at: float | None = None
        self._before = MachineState.CONNECTED
        """What it was before it was hung."""

    def news(self, news: GuestNews, at: float) -> Said:
        """Take what the link to the guest has found out."""
        details = dict(news.details)
        if news.kind in ("connected", "ready"):
            return self._heard(news, at, details)
        if news.kind == "hung":
            return self._hang(news.message, at)
        if news.kind == "lost":
            self._lost_at = at if self._lost_at is None else self._lost_at
            return Said(f"the link to the guest is gone: {news.message}", None, details)
        if news.kind == "answering":
            self._lost_at = None
            return self._change(self._before, news.message) if self._hung_at is not None else Said(news.message)
        if news.kind == "event":
            return Said(describe_event(news.message, details), None, {"event": news.message, **details})
        return Said(news.message or news.kind, None, details)

    def late(self, at: float, serial_line: str) -> Said | None:
        """What is said of a guest that has not been heard of; None where it was, or where it was said lately."""
        every_s = LATE_S if at - self._began < VERY_LATE_AFTER_S else VERY_LATE_S
        if self.greeted or at - self._late_told < every_s:
            return None
        self._late_told = at
        last = f"its serial console says: {serial_line}" if serial_line else "its serial console has said nothing yet"
        return Said(f"still waiting for the guest, {at - self._began:.0f} s by now; {last}")

    def silent(self, at: float) -> Said | None:
        """What becomes of a guest whose link did not come again."""
        if self._hung_at is None and self._lost_at is not None and at - self._lost_at >= LOST_S:
            return self._hang(f"no link to the guest could be made for {at - self._lost_at:.0f} s", at)
        return None

    def overdue(self, at: float) -> bool:
        """Whether it has been hung for so long that it is to be ended and started again."""
        return self._hung_at is not None and at - self._hung_at >= HUNG_S

    def halted(self, at: float) -> None:
        """It stands still by no fault of its own: from here on is counted anew what it may be silent."""
        self._lost_at = None if self._lost_at is None else at
        self._hung_at = None if self._hung_at is None else at

    def _heard(self, news: GuestNews, at: float, details: dict[str, Any]) -> Said:
        self.greeted, self._lost_at, self._hung_at = True, None, None
        self.degraded = {
            part[:NAME_CHARACTERS]: why[:REASON_CHARACTERS] for part, why in list(news.degraded.items())[:MAX_DEGRADED]
        }
        self.boot_id, self.version = news.boot_id[:NAME_CHARACTERS], news.version[:NAME_CHARACTERS]
        details.update(boot_id=self.boot_id, version=self.version, degraded=self.degraded)
        if news.kind == "connected":
            coming = self.degraded.get("starting")
            message = f"the guest answers, coworkd {self.version}" + (f"; coming up: {coming}" if coming else "")
            return self._change(MachineState.CONNECTED, message, details)
        if self.ready_after_s is None:
            self.ready_after_s = at - self._began
        if self.degraded:
            lacking = "; ".join(f"{part}: {why}" for part, why in self.degraded.items())
            return self._change(MachineState.DEGRADED, f"the guest is ready, without {lacking}", details)
        return self._change(MachineState.READY, "the guest is ready", details)

    def _hang(self, message: str, at: float) -> Said:
        if self._hung_at is not None:
            return Said(message)
        self._before, self._hung_at = self.state, at
        self.state = MachineState.HUNG
        return Said(message, MachineState.HUNG)

    def _change(self, state: MachineState, message: str, details: dict[str, Any] | None = None) -> Said:
        self._hung_at = None
        changed = state if state is not self.state else None
        self.state = state
        return Said(message, changed, details or {})


class RestartBudget:
    """How often a machine is started again by itself: `RESTARTS` times in `RESTART_WINDOW_S`, then never."""

    def __init__(self, mode: RestartMode) -> None:
        self._mode = mode
        self._at: deque[float] = deque()

    def spend(self, cause: MachineState | None, at: float) -> bool:
        """Whether to start again after `cause`: HUNG, CRASHED, or None where the guest asked for it. Counts it, if so."""
        if self._mode == "never" or (cause is MachineState.CRASHED and self._mode != "always"):
            return False
        while self._at and at - self._at[0] > RESTART_WINDOW_S:
            self._at.popleft()
        if len(self._at) >= RESTARTS:
            return False
        self._at.append(at)
        return True


def judge_end(ended: Ended, serial: list[str]) -> Said:
    """What a life that nobody asked to end has ended as; state None where the guest wants to be started again."""
    details = {"how": ended.how, "exit_status": ended.exit_status, "serial": serial}
    if ended.how == "powered_off":
        return Said("the guest has powered itself off", MachineState.STOPPED, details)
    if ended.how == "reset":
        return Said("the guest wants to be started again", None, details)
    last = f"; its serial console said last: {serial[-1]}" if serial else "; its serial console has said nothing"
    how = {"panicked": "the guest's kernel panicked", "killed": "the machine was killed from outside"}
    return Said(f"{how.get(ended.how, 'the machine failed')}: {ended.message}{last}", MachineState.CRASHED, details)
