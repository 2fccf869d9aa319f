"""The guest's clock: kept to the host's, which is the only one it has.

Rules
- Forward only, and only past `THRESHOLD_S`: a file's time, a certificate or a log never goes back. A wish to go back is told, in the
  answer and as `degraded.clock`, and not done.
- A time outside `EARLIEST` to `LATEST` is no time: refused.
- A step is recorded before it is made, then told as `clock.stepped`.
- Where CLOCK_BOOTTIME has run ahead of CLOCK_MONOTONIC the machine was asleep: `clock.slept` asks every host to sync again. Where the
  real clock moved against the monotonic one and we did not do it, that is told as `clock.stepped` too.
- Timers of coworkd's are monotonic and need nothing of this.

On a machine that is not ours to keep (`coworkd local`) nothing is ever set. Source: clock_gettime(2).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from coworkd.model.calls_boot import ClockSynced, SyncClock
from coworkd.model.errors import CoworkError, InternalError, InvalidParams
from coworkd.model.ports import AuditPort, EventPort
from coworkd.system.clocks import Clocks, read_clocks, set_real

THRESHOLD_S = 0.1
SLEPT_S = 1.0
LOOK_S = 1.0
EARLIEST, LATEST = 1_700_000_000.0, 4_102_444_800.0
"""2023-11-14 and 2100-01-01."""
_log = logging.getLogger("coworkd.clock")


class Clock:
    """Implements `rpc.handlers.ports.ClockApi`. `serve` looks for jumps."""

    def __init__(
        self,
        *,
        audit: AuditPort,
        events: EventPort,
        may_set: bool,
        on_state: Callable[[str | None], None],
        read: Callable[[], Clocks] = read_clocks,
        set_clock: Callable[[float], None] = set_real,
    ) -> None:
        """`may_set` is False where the clock is not this coworkd's to keep; `on_state` is told what is wrong with it, or None."""
        self._audit = audit
        self._events = events
        self._may_set = may_set
        self._on_state = on_state
        self._read = read
        self._set = set_clock
        self._seen = read()
        self._turn = trio.Lock()

    async def sync(self, params: SyncClock, /, *, source: str = "sync_clock") -> ClockSynced:
        """Step to the host's time where it is ahead. Raises `InvalidParams` for what is no time, `DiskFailed` where the step cannot be
        recorded, `InternalError` where the kernel refuses it.
        """
        if not (math.isfinite(params.time) and EARLIEST <= params.time <= LATEST):
            raise InvalidParams(f"{params.time!r} is no time of this century in seconds since the epoch", key="time")
        return await self.keep_to(params.time, source=source)

    async def greeted(self, host_time: float) -> None:
        """A host said its time in `hello`. What keeps the clock from it is logged, and keeps no host out."""
        try:
            await self.sync(SyncClock(time=host_time), source="hello")
        except CoworkError as error:
            _log.warning("the clock was not kept to a host's: %s", error.message)

    async def keep_to(self, host_time: float, *, source: str) -> ClockSynced:
        """See `sync`."""
        began = self._read()
        async with self._turn:
            return await self._keep_to(host_time + (self._read().monotonic - began.monotonic), source)

    async def _keep_to(self, host_time: float, source: str) -> ClockSynced:
        now = self._read()
        offset_s = host_time - now.real
        if abs(offset_s) <= THRESHOLD_S:
            self._on_state(None)
            return ClockSynced(offset_s=offset_s, stepped=False)
        reason = ""
        if not self._may_set:
            reason = "this machine's clock is not coworkd's to set"
        elif offset_s < 0:
            reason = f"the guest's clock is {-offset_s:.3f} s ahead of the host's, and is never set back"
            self._on_state(reason)
        if reason:
            _log.info("clock not set: %s", reason)
            return ClockSynced(offset_s=offset_s, stepped=False, reason=reason)
        await self._audit.record(
            "clock.step", {"before": now.real, "after": host_time, "delta_s": offset_s, "source": source}
        )
        # What recording took is not lost.
        target = host_time + (self._read().monotonic - now.monotonic)
        try:
            self._set(target)
        except OSError as error:
            reason = f"the clock cannot be set: {error.strerror}"
            self._on_state(reason)
            raise InternalError(f"{reason}; has coworkd CAP_SYS_TIME?", errno=error.errno) from error
        self._seen = self._read()
        self._on_state(None)
        self._tell_step(now.real, offset_s, source)
        return ClockSynced(offset_s=offset_s, stepped=True)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for jumps for ever."""
        self._seen = self._read()
        task_status.started()
        while True:
            await trio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Compare the clocks with the last look."""
        before, now = self._seen, self._read()
        self._seen = now
        passed_s = now.monotonic - before.monotonic
        slept_s = now.boot - before.boot - passed_s
        if slept_s > SLEPT_S:
            _log.info("this machine slept for %.1f s", slept_s)
            self._events.publish("clock.slept", {"slept_s": slept_s})
        jumped_s = now.real - before.real - passed_s - max(0.0, slept_s)
        if abs(jumped_s) > SLEPT_S:
            self._tell_step(now.real - jumped_s, jumped_s, "unknown")

    def _tell_step(self, before: float, delta_s: float, source: str) -> None:
        _log.info("clock stepped by %.3f s (%s)", delta_s, source)
        self._events.publish(
            "clock.stepped", {"before": before, "after": before + delta_s, "delta_s": delta_s, "source": source}
        )
