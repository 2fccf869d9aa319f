"""Ending processes: by request, by time, because nobody waits; and what is recorded of every end.

Rules
- Killing is done even where the audit log refuses the record: a full disk must not keep a command alive.
- `kill` with grace is TERM to the command's group, then the end of the whole tree; where there is no group to tell, the
  tree ends at once.
- The first reason to end a process stays its reason, and the moment of its killing stays, whichever coworkd is there by then: both
  are noted with the launcher before anything is done.
- The launcher forgets a process only after its exit is durable, so that a restart cannot lose one. Where the log refuses that, it is
  tried again for as long as it takes.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import trio
from msgspec import structs

from coworkd.model.errors import CoworkError
from coworkd.model.ports import AuditPort, LauncherPort
from coworkd.model.process import ExitReason
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_note import ProcessNote, encode_note

RECORD_AGAIN_S = 10.0
_log = logging.getLogger("coworkd.process")


class Ender:
    """Ends processes through the launcher. Starts its tasks by `later`."""

    def __init__(
        self,
        *,
        launcher: LauncherPort,
        audit: AuditPort,
        later: Callable[..., None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launcher = launcher
        self._audit = audit
        self._later = later
        self._monotonic = monotonic

    async def end(
        self, process: LiveProcess, reason: ExitReason, *, grace_s: float = 0.0, why: str | None = None
    ) -> None:
        """Begin to end `process`; one that is not spawned yet is ended when it is. `why` goes into the audit log.

        Raises `Unavailable` where the launcher is gone, and every sandbox with it.
        """
        if not process.running:
            return
        process.ended_by = process.ended_by or reason
        await self.record("process.kill", process, grace_s=grace_s, reason=why or reason)
        if not process.spawned or not process.running:
            return
        await self._note_end(process, grace_s)
        if grace_s > 0 and await self._terminate(process):
            self._later(self._kill_after, process, grace_s)
        else:
            await self._launcher.kill(process.id)

    async def end_unwatched(self, process: LiveProcess, reason: ExitReason, why: str) -> None:
        """`end` for a task of its own: what goes wrong is logged."""
        try:
            await self.end(process, reason, why=why)
        except CoworkError as error:
            _log.error("process %s could not be killed (%s): %s", process.id, why, error.message)

    async def enforce_timeout(self, process: LiveProcess, timeout_s: float, left_s: float | None = None) -> None:
        """Kill the tree when `timeout_s` have passed, of which `left_s` are left, and it still runs."""
        with trio.move_on_after(timeout_s if left_s is None else left_s):
            await process.over.wait()
            return
        await self.end_unwatched(process, "timeout", f"ran for {timeout_s:g} s")

    def resume(self, process: LiveProcess) -> None:
        """Go on with the end of an adopted process, as its note says."""
        note, now = process.note, self._monotonic()
        if not process.running:
            return
        if note.kill_at is not None:
            self._later(self._kill_after, process, max(0.0, note.kill_at - now))
        if note.times_out_at is not None and note.timeout_s is not None:
            self._later(self.enforce_timeout, process, note.timeout_s, max(0.0, note.times_out_at - now))

    async def _note_end(self, process: LiveProcess, grace_s: float) -> None:
        """Have the launcher know why and when it ends, and the next coworkd by that; one that cannot keep it is gone."""
        kill_at = self._monotonic() + grace_s
        note = process.note
        kill_at = kill_at if note.kill_at is None else min(kill_at, note.kill_at)
        await self.note(process, structs.replace(note, ended_by=process.ended_by, kill_at=kill_at))

    async def note(self, process: LiveProcess, note: ProcessNote) -> None:
        """Have the launcher keep another note of it."""
        process.note = note
        try:
            await self._launcher.annotate(process.id, encode_note(note))
        except CoworkError as error:
            _log.debug("what is new of %s is not noted: %s", process.id, error.message)

    async def record(self, kind: str, process: LiveProcess, **fields: Any) -> bool:
        """Record what has happened, or will happen whatever the log says; False where the log refuses, which is itself logged."""
        try:
            await self._audit.record(kind, {"session": process.session, "process": process.id, **fields})
        except CoworkError as error:
            _log.error("%s of %s is not in the audit log: %s", kind, process.id, error.message)
            return False
        return True

    async def record_exit(self, process: LiveProcess) -> None:
        """Make the exit of `process` durable, and try again where the log refuses; sets `recorded` once it was tried. It lets the launcher
        forget it, where that was wanted meanwhile, once it is in the log.
        """
        record = process.record
        if record is not None:
            exit_fields = {
                "exit": record.exit,
                "output": record.output,
                "bytes": record.bytes,
                "rusage": record.rusage,
                "oom_kills": process.exited.oom_kills if process.exited else None,
                "pid": process.pid,
                "started_at": record.started_at,
                "ended_at": record.ended_at,
            }
            while not await self.record("process.exit", process, **exit_fields):
                process.unlogged = True
                process.recorded.set()  # whoever waits for the end does not wait for the disk
                await trio.sleep(RECORD_AGAIN_S)
            process.unlogged = False
            if not process.one_shot:
                await self.note(process, structs.replace(process.note, recorded=True))
        process.recorded.set()
        if process.forgotten:
            await self.forget(process)

    async def forget(self, process: LiveProcess) -> None:
        """Let the launcher forget it, now that its end is recorded."""
        try:
            await self._launcher.forget(process.id)
        except CoworkError as error:
            _log.debug("the launcher could not forget %s: %s", process.id, error.message)

    async def _terminate(self, process: LiveProcess) -> bool:
        try:
            await self._launcher.signal(process.id, signal.SIGTERM)
        except CoworkError as error:
            _log.debug("TERM did not reach %s: %s", process.id, error.message)
            return False
        return True

    async def kill_lost(self, process: LiveProcess) -> None:
        """End a process that was told as lost and turned out to live."""
        await self.record("process.kill", process, reason="it was told as lost")
        await self._kill(process)

    async def _kill_after(self, process: LiveProcess, grace_s: float) -> None:
        with trio.move_on_after(grace_s):
            await process.over.wait()
            return
        await self._kill(process)

    async def _kill(self, process: LiveProcess) -> None:
        try:
            await self._launcher.kill(process.id)
        except CoworkError as error:
            _log.error("process %s could not be killed: %s", process.id, error.message)
