"""The session disk: brought up before all else, watched from then on, and said to be what it is.

States: `ok`; `degraded`, there but of no use (read-only, cut short, vanished, failing); `absent`, not there or not to be touched. In the
latter two no session and no command is started, everything else goes on. What limits and does not forbid (a repair, no disk where one
might have been) is a note: the state is `ok`, and `hello` tells the note.

Rules
- A disk is mounted by a worker in the launcher's namespace; coworkd looks, and never mounts. With a directory there is no worker at all.
- What bring-up changed on the disk (a format, a repair) is recorded as soon as there is an audit log, which lies on that disk.
- One that was gone or absent and is back is told to `on_back`, whose coworkd then comes up anew on it: nothing is mounted under
  services that have files open below. One that was only unmounted (a launcher that ends does so) is back at once.
- Every look is made in a thread of its own; one that does not come back in time is a disk that does not answer, and no second is sent
  after it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from coworkd.config import StorageConfig
from coworkd.model import calls_storage as calls
from coworkd.model import disk
from coworkd.model.errors import CoworkError, DiskFailed, InvalidState, Unavailable
from coworkd.model.ports import AuditPort, EventPort
from coworkd.services.storage_disk import DiskPort
from coworkd.services.storage_mount import Facts, Problem, is_there, judge, look
from coworkd.services.storage_reports import keep_report
from coworkd.services.storage_reserve import Reserve
from coworkd.services.storage_room import Room, next_mark, read_room

LOOK_S = 10.0
LOOK_DEADLINE_S = 20.0
FREED_TRIM_BYTES = 64 * 1024 * 1024
"""How much must have been deleted until the device is told before the day is over."""
_log = logging.getLogger("coworkd.storage")
_REMEDY = {
    "gone": "coworkd comes up anew on it when it is back",
    "read_only": "end the commands and restart coworkd-launcher: the disk is then checked and repaired",
    "failing": "look at the kernel's log; coworkd goes on with it when it works again",
}


class Storage:
    """Implements `ports.StorageGuard`. `bring_up` first, then `attach`, then `serve`."""

    def __init__(
        self,
        config: StorageConfig,
        *,
        sessions_dir: str,
        state_dir: str,
        worker: DiskPort,
        events: EventPort,
        on_state: Callable[[str | None], None],
        look: Callable[..., Facts] = look,
        is_there: Callable[[int], bool] = is_there,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_state` is told what is wrong, or what limits, or None."""
        self._config = config
        self._sessions_dir = sessions_dir
        self._state_dir = state_dir
        self._disk = worker
        self._events = events
        self._on_state = on_state
        self._looking = look
        self._is_there = is_there
        self._clock = clock
        self._thread = trio.CapacityLimiter(1)
        self._audit: AuditPort | None = None
        self._on_back: Callable[[str], None] = lambda reason: None
        self._problem: Problem | None = None
        self._mounted: int | None = None
        self._brought_up: disk.BroughtUp | None = None
        self._unrecorded: list[dict[str, Any]] = []
        self._freed_bytes = 0
        self._was_away = False
        self._look_soon = trio.Event()
        self.reserve = Reserve(state_dir)
        self.kind: calls.StorageKind = "directory"
        self.state: calls.StorageState = "ok"
        self.notes: tuple[str, ...] = ()
        self.mark = 0

    # -- coming up ----------------------------------------------------------------------------------------------

    async def bring_up(self) -> None:
        """Have the disk mounted, or say why not; either way there is a state directory afterwards. Raises `DiskFailed` where even
        that cannot be made, `Unavailable` where nobody is there to mount a disk.
        """
        if self._config.kind != "directory":
            await self._mount(self._ask())
        await trio.to_thread.run_sync(self._make_state_dir)
        await self._keep_report()
        await trio.to_thread.run_sync(self.reserve.refill)
        self._tell()

    def _ask(self) -> disk.BringUp:
        kind, config = self._config.kind, self._config
        assert kind != "directory"
        return disk.BringUp(
            id=1,
            kind=kind,
            mount_point=os.fsencode(self._sessions_dir),
            label=config.label,
            device=os.fsencode(config.device),
            wait_s=config.wait_s if kind == "disk" else 0.0,
            loop_file=os.fsencode(config.loop_file),
            loop_size=config.loop_size,
            reserve_percent=config.reserve_percent,
        )

    async def _mount(self, ask: disk.BringUp) -> None:
        up = await self._disk.bring_up(ask)
        for step in up.steps:
            _log.info("disk: %s in %.3f s %s", step.name, step.took_s, step.detail)
        if ask.kind == "auto" and up.none_there:
            self.notes = (f"no session disk, sessions lie in {self._sessions_dir}: {up.reason}",)
            return
        self.kind = up.kind
        self._brought_up = up
        device = os.fsdecode(up.device)
        for step in up.steps:
            if step.changed:
                self._unrecorded.append({"device": device, "action": step.name, "message": step.detail})
        if up.state == "absent":
            self.state, self._problem = "absent", Problem(lack="gone", reason=f"no session disk: {up.reason}")
            return
        self._mounted = (await trio.to_thread.run_sync(os.stat, self._sessions_dir)).st_dev
        if up.reason:
            self.notes = (up.reason,)
        await self._disk.own(self._sessions_dir)

    async def _keep_report(self) -> None:
        up = self._brought_up
        if up is None or not up.report:
            return
        _log.warning("what e2fsck said of %s:\n%s", self.device, up.report)
        keep = partial(keep_report, self._state_dir, up.report, at=self._clock())
        try:
            _log.warning("kept in %s", await trio.to_thread.run_sync(keep))
        except OSError as error:
            _log.error("what e2fsck said cannot be kept: %s", error)

    def _make_state_dir(self) -> None:
        try:
            os.makedirs(self._sessions_dir, 0o711, exist_ok=True)
            os.makedirs(self._state_dir, 0o700, exist_ok=True)
        except OSError as error:
            raise DiskFailed(
                f"the state directory {self._state_dir} cannot be made: {error.strerror}", errno=error.errno
            ) from error

    def attach(self, audit: AuditPort, *, on_back: Callable[[str], None]) -> None:
        """Say where to record, and who is told that a disk that was away is back; before `serve`."""
        self._audit = audit
        self._on_back = on_back

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Record what bring-up did, then watch and trim. Never returns."""
        await self._record_all()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            if self._config.trim_s and self._mounted is not None:
                nursery.start_soon(self._trim_daily)
            task_status.started()

    async def _record_all(self) -> None:
        records, self._unrecorded = self._unrecorded, []
        for fields in records:
            await self._record(fields)

    async def _record(self, fields: dict[str, Any]) -> None:
        """The disk that is to be written about may be the one that fails: then the log of the day has it."""
        try:
            if self._audit is not None:
                await self._audit.record("storage.change", fields)
        except CoworkError as error:
            _log.error("not recorded: %s: %s", fields, error.message)

    # -- watching -----------------------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """Something suggests that the disk is not as it was: look now."""
        self._look_soon.set()

    def freed(self, freed_bytes: int, /) -> None:
        """See `ports.StorageGuard`: soon where it is much."""
        self._freed_bytes += freed_bytes
        self.look_soon()

    async def _watch(self) -> None:
        while True:
            await self.look_now()
            if self.state == "ok":
                await trio.to_thread.run_sync(self.reserve.refill, limiter=self._thread)
                if self._mounted is not None and self._freed_bytes >= FREED_TRIM_BYTES:
                    await self._trim_quietly()
            with trio.move_on_after(LOOK_S):
                await self._look_soon.wait()
            self._look_soon = trio.Event()

    async def look_now(self) -> None:
        """One look, and what follows from it."""
        if self.state == "absent":
            await self._look_whether_back()
            return
        facts: Facts | None = None
        with trio.move_on_after(LOOK_DEADLINE_S):
            asking = partial(self._looking, self._sessions_dir, self._state_dir, is_mount=self._mounted is not None)
            facts = await trio.to_thread.run_sync(asking, abandon_on_cancel=True, limiter=self._thread)
        if facts is None:
            reason = f"the session disk has not answered for {LOOK_DEADLINE_S:g} s"
            await self._settle(Problem(lack="failing", reason=reason))
            return
        if facts.blind:
            _log.warning("the session disk cannot be looked at: %s", facts.error)
            return
        await self._settle(judge(facts, mounted=self._mounted))
        if facts.room is not None and self.state == "ok":
            self._press(facts.room)
        if self._problem is not None and self._problem.lack == "gone":
            if facts.mount is None and self._mounted is not None and self._is_there(self._mounted):
                # It would never be found free: the files that are open on it are our own.
                self._on_back("the session disk was unmounted, its device is there")
            else:
                await self._look_whether_back()

    async def _settle(self, problem: Problem | None) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        self.state = "ok" if problem is None else "degraded"
        self._tell()
        action = "recovered" if problem is None else "degraded"
        await self._record({"device": self.device, "action": action, "message": problem.reason if problem else None})

    def _tell(self) -> None:
        problem = self._problem
        if problem is not None:
            reason = f"{problem.reason}; {_REMEDY[problem.lack]}"
            _log.error("%s", reason)
        else:
            reason = "; ".join(self.notes)
        self._on_state(reason or None)
        self._events.publish("storage.state", {"state": self.state, "kind": self.kind, "reason": reason or None})

    def _press(self, room: Room) -> None:
        mark = next_mark(self.mark, room.used_percent)
        if mark == self.mark:
            return
        self.mark = mark
        self._events.publish(
            "storage.pressure",
            {
                "mark": mark,
                "used_percent": round(room.used_percent, 1),
                "free_bytes": room.free_bytes,
                "inodes_free": room.inodes_free,
            },
        )

    async def _look_whether_back(self) -> None:
        if self._config.kind == "directory":
            return
        try:
            found = await self._disk.find(self._ask())
        except CoworkError as error:
            _log.debug("whether the disk is back is not known: %s", error.message)
            return
        self._was_away = self._was_away or not found.found
        # What was refused when coworkd came up, and is no other since, would be refused again and again.
        if found.found and (self._was_away or self.state == "degraded"):
            self._on_back(f"the session disk is back: {found.detail}")

    # -- verbs --------------------------------------------------------------------------------------------------

    def refuse_if_unusable(self) -> None:
        """See `ports.StorageGuard`."""
        problem = self._problem
        if problem is not None:
            raise Unavailable(
                f"{problem.reason}: nothing can be started; {_REMEDY[problem.lack]}", stage="storage", state=self.state
            )

    @property
    def reason(self) -> str | None:
        """What is wrong, else what limits."""
        return self._problem.reason if self._problem else "; ".join(self.notes) or None

    @property
    def device(self) -> str | None:
        up = self._brought_up
        return os.fsdecode(up.device) if up is not None and up.device else None

    @property
    def project_quota(self) -> bool:
        """Whether the kernel can keep sessions to their limit on it."""
        return self._brought_up is not None and self._brought_up.quota

    async def usage(self) -> calls.StorageUsage:
        """What there is and what is left. Raises `DiskFailed` where the disk does not tell."""
        self.look_soon()
        try:
            room = await trio.to_thread.run_sync(read_room, self._sessions_dir, abandon_on_cancel=True)
        except OSError as error:
            raise DiskFailed(f"{self._sessions_dir}: {error.strerror}", errno=error.errno) from error
        return calls.StorageUsage(
            kind=self.kind,
            state=self.state,
            reason=self.reason,
            path=self._sessions_dir,
            device=self.device,
            size_bytes=room.size_bytes,
            used_bytes=room.used_bytes,
            free_bytes=room.free_bytes,
            reserved_bytes=room.reserved_bytes,
            inodes=room.inodes,
            inodes_free=room.inodes_free,
            quota="project" if self.project_quota else "watched",
            pressure=self.mark,
        )

    async def trim(self, params: calls.StorageTrim) -> calls.StorageTrimmed:
        """Tell the device what is free. Raises `InvalidState` for a directory, `DiskFailed` where the device cannot be told."""
        self._refuse_directory("trimmed")
        await self._record_first("trim", None)
        self._freed_bytes = 0
        return calls.StorageTrimmed(trimmed_bytes=await self._disk.trim(self._sessions_dir))

    async def grow(self, params: calls.StorageGrow) -> calls.StorageGrown:
        """Raises `InvalidState` for a directory, or a size of what is no loop file, `DiskFailed` where it cannot be done."""
        self._refuse_directory("grown")
        if params.size is not None and self.kind != "loop":
            raise InvalidState("a disk grows on the host: leave size away to take what it has grown by")
        await self._record_first("grow", params.size)
        grown = await self._disk.grow(self._sessions_dir, params.size)
        self.look_soon()
        return calls.StorageGrown(before_bytes=grown.before_bytes, after_bytes=grown.after_bytes)

    def _refuse_directory(self, done: str) -> None:
        if self._mounted is None:
            raise InvalidState(f"sessions lie in the directory {self._sessions_dir}: there is no disk to be {done}")
        self.refuse_if_unusable()

    async def _record_first(self, action: str, size: int | None) -> None:
        if self._audit is not None:
            await self._audit.record("storage.change", {"device": self.device, "action": action, "bytes": size})

    async def _trim_daily(self) -> None:
        while True:
            await trio.sleep(self._config.trim_s)
            await self._trim_quietly()

    async def _trim_quietly(self) -> None:
        self._freed_bytes = 0
        try:
            trimmed = await self._disk.trim(self._sessions_dir)
        except CoworkError as error:
            _log.info("not trimmed: %s", error.message)
        else:
            _log.info("trimmed %d bytes", trimmed)
