"""From a request to a spawned command: session, policy, plan, audit, launcher, in a straight line.

Rules
- `process.start` is durable in the audit log before the command's exec: the disk and the launcher, which makes the sandbox, work at the
  same time. Where the log refuses, the sandbox is abandoned and nothing has run.
- Whatever fails on the way leaves nothing behind, and what failed after the record is recorded too.
- Once asked, the launcher and the disk are waited for, cancelled or not: the one's answer brings descriptors, the other's decides.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from msgspec import Struct, structs

from coworkd.model.errors import CoworkError, InvalidState, PolicyDenied, StartFailed, Unavailable
from coworkd.model.launch import Spawn
from coworkd.model.policy import EffectivePolicy
from coworkd.model.ports import EarlyAudit, LauncherPort, PolicyPort, Recording, SessionDirectory, SpawnedFds
from coworkd.model.process import ProcessSpec, StreamName
from coworkd.model.session import SessionView
from coworkd.policy import narrow_request, narrow_spool, narrow_timeout
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_lost import Unended
from coworkd.services.process_note import ProcessNote, encode_note
from coworkd.services.process_request import StartRequest
from coworkd.services.spools import STREAM_LIMIT_BYTES

Compose = Callable[[ProcessSpec, SessionView, EffectivePolicy], Spawn]
"""`sandbox.compose` for this guest: pure; raises `InvalidParams`, `StartFailed`, `SandboxSetupFailed`."""

OpenFiles = Callable[[int, int, int], Awaitable[list[int]]]
"""`(project, count, limit_bytes)` → so many files; see `SpoolFiles.open`."""

_log = logging.getLogger("coworkd.process")


class Launched(Struct, frozen=True, kw_only=True):
    """A sandbox that waits to be let in. Whoever gets it closes `fds`, and calls `let_in` or `abandon`."""

    fds: SpawnedFds
    record: Recording
    timeout_s: float | None
    narrowed: tuple[str, ...]


class Starter:
    """The way into the launcher."""

    def __init__(
        self,
        *,
        launcher: LauncherPort,
        sessions: SessionDirectory,
        policies: PolicyPort,
        audit: EarlyAudit,
        compose: Compose,
        files: OpenFiles | None = None,
        stream_bytes: int = STREAM_LIMIT_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`files` opens files for spools on the session disk, where there is one; `stream_bytes` is kept where nobody asks."""
        self._launcher = launcher
        self._sessions = sessions
        self._policies = policies
        self._audit = audit
        self._compose = compose
        self._files = files
        self._stream_bytes = stream_bytes
        self._monotonic = monotonic

    async def launch(self, process: LiveProcess, request: StartRequest, link: str) -> Launched:
        """Have a sandbox for `request`, as `process`, which learns every notice from here on. Raises any `CoworkError`."""
        try:
            session = await self._sessions.open_for_command(request.session)
            limits, cut = narrow_request(session.limits, request.limits)
            policy = await self._policies.effective(request.profile or session.profile, limits)
            spawn = self._compose(request.spec(process.id), session, policy)
        except (PolicyDenied, StartFailed) as error:
            await self.record_failure(process, error)
            raise
        limit_s, shortened = narrow_timeout(policy.profile, request.timeout_s)
        timeout_s = limit_s or None
        times_out_at = None if timeout_s is None else self._monotonic() + timeout_s
        spool_bytes, smaller = narrow_spool(policy.profile, request.spool.limit_bytes, self._stream_bytes)
        process.note = ProcessNote(
            on_full=request.on_full,
            spool_bytes=spool_bytes,
            timeout_s=timeout_s,
            times_out_at=times_out_at,
            readers=int(request.awaited),
        )
        spawn = structs.replace(spawn, note=encode_note(process.note), one_shot=request.one_shot)
        narrowed = (*policy.narrowed, *cut, *(said for said in (shortened, smaller) if said is not None))
        if request.spool.where == "disk":
            await self._open_files(process, session.uid, spool_bytes)
        fields = _fields(process, request, spawn, policy, link, timeout_s, narrowed)
        if process.ended_by is not None:
            raise InvalidState(f"process {process.id} was ended before it was started", process=process.id)
        record = self._audit.record_nowait("process.start", fields, then=process.gate.recorded)
        process.asked_for = True
        self._launcher.watch(process.id, process.learn)
        try:
            fds = await self._launcher.spawn(spawn, policy)
        except BaseException as error:
            self._launcher.unwatch(process.id)
            with trio.CancelScope(shield=True):
                await self._record_end(process, record, error)
            raise
        process.gate.hold(fds.take_gate())
        return Launched(fds=fds, record=record, timeout_s=timeout_s, narrowed=narrowed)

    async def _open_files(self, process: LiveProcess, project: int, limit_bytes: int) -> None:
        if self._files is None:
            raise InvalidState("there is no session disk to keep output on; leave spool.where out", stage="spool")
        streams: tuple[StreamName, ...] = ("stdout", "stderr")
        made = await self._files(project, len(streams), limit_bytes)
        process.disk_files.update(zip(streams, made, strict=True))

    async def let_in(self, process: LiveProcess, launched: Launched) -> None:
        """Let the command's exec happen as soon as its start is durable. Raises what the log says; `abandon` it then."""
        process.gate.ready()
        await launched.record.durable()

    async def abandon(self, process: LiveProcess, launched: Launched, error: BaseException) -> None:
        """Let a sandbox go that may not become its command, because of `error`: nothing stays of it but the record of that."""
        process.gate.shut()
        self._launcher.unwatch(process.id)
        with trio.CancelScope(shield=True):
            with contextlib.suppress(CoworkError):  # a launcher that is gone abandons it by itself
                await self._launcher.abandon(process.id)
            await self._record_end(process, launched.record, error)

    async def _record_end(self, process: LiveProcess, record: Recording, error: BaseException) -> None:
        """Record why nothing came of a start, which the log may have refused itself; without that it would be taken for one that ran."""
        with contextlib.suppress(CoworkError):
            await record.durable()
        cut_off = Unavailable("the start was cut off before the command was let in: coworkd stops; start it again")
        await self.record_failure(process, error if isinstance(error, CoworkError) else cut_off)

    async def record_failure(self, process: LiveProcess | Unended, error: CoworkError) -> None:
        """Record that `process` did not start. A log that refuses is itself logged: there is no effect left to hold back."""
        kind = "process.denied" if isinstance(error, PolicyDenied) else "process.start_failed"
        fields: dict[str, Any] = {
            "session": process.session,
            "process": process.id,
            "argv": process.argv,
            "code": error.code.value,
            "message": error.message,
        }
        fields.update((name, error.details[name]) for name in ("stage", "errno") if name in error.details)
        try:
            await self._audit.record(kind, fields)
        except CoworkError as refused:
            _log.error("%s of %s is not in the audit log: %s", kind, process.id, refused.message)


def _fields(
    process: LiveProcess,
    request: StartRequest,
    spawn: Spawn,
    policy: EffectivePolicy,
    link: str,
    timeout_s: float | None,
    narrowed: tuple[str, ...],
) -> Mapping[str, Any]:
    return {
        "session": process.session,
        "process": process.id,
        "link": link,
        "method": "process.run" if request.one_shot else "process.start",
        "argv": request.argv,
        "cwd": request.cwd,
        "env_names": sorted(request.env),
        "uid": spawn.uid,
        "gid": spawn.gid,
        "profile": policy.profile.name,
        "stdin": spawn.stdin,
        "tty": spawn.tty is not None,
        "timeout_s": timeout_s,
        "limits": policy.profile.limits,
        "filters": spawn.filters,
        "narrowed": narrowed,
    }
