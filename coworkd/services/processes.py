"""The process service: one command of a session, from `process.start` to `process.forget`.

Rules
- A process has its id before anything happens, and keeps it until it is forgotten; ids never name two processes.
- `start` and `run` answer once the command's exec is known; a command that never ran is an error, and leaves nothing.
- A started process belongs to its session, not to a link: links come and go. A one-shot (`run`) belongs to its caller: it is
  killed when the caller's link ends, and forgotten once answered.
- Killing is done even where the audit log refuses the record; starting and signalling are not.
- An exit is published and recorded once. The launcher forgets a process only after its exit is durable.

Sans policy and sans sandbox: those are asked in `process_starting`. Encoding is the caller's.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import trio
from msgspec import Struct

from coworkd.config import FinishedConfig, SpoolConfig
from coworkd.model import calls
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    DeadlineExceeded,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    OutOfRange,
    SandboxSetupFailed,
    StartFailed,
    Unavailable,
)
from coworkd.model.ports import AuditPort, EventPort, ExitListener, LauncherPort, LinkPort, PolicyPort, SessionDirectory
from coworkd.model.process import ExitReason, ExitRecord, ProcessInfo, StreamName, TtySize
from coworkd.services.process_callers import Callers
from coworkd.services.process_kept import KeptProcesses
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_reader import EncodeNotification, EncodeOutput, ProcessReader
from coworkd.services.process_request import (
    ONE_SHOT_PREFIX,
    StartRequest,
    parse_run,
    parse_seconds,
    parse_signal,
    parse_start,
)
from coworkd.services.process_starting import Compose, Launched, Starter
from coworkd.services.terminal import check_size


class ProcessLimits(Struct, frozen=True, kw_only=True):
    """Bounds of the service."""

    running: int = 512
    start_s: float = 10.0
    """A `start` whose exec is not known by then is killed and fails."""
    grace_s: float = 5.0
    spool: SpoolConfig = SpoolConfig()
    finished: FinishedConfig = FinishedConfig()


class Processes:
    """All processes of this guest. `serve` runs it; it implements `ports.ProcessDirectory`."""

    def __init__(
        self,
        *,
        launcher: LauncherPort,
        sessions: SessionDirectory,
        policies: PolicyPort,
        audit: AuditPort,
        events: EventPort,
        compose: Compose,
        encode_output: EncodeOutput,
        encode_notification: EncodeNotification,
        limits: ProcessLimits = ProcessLimits(),
        clock: Callable[[], float] = time.time,
        listeners: Iterable[ExitListener] = (),
    ) -> None:
        raise NotImplementedError

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt what the launcher kept, then own every task of every process. Never returns; started when calls may come.

        Cancelled, it lets go of descriptors and ends nothing: commands live on in the launcher. See `end_all`.
        """
        raise NotImplementedError

    async def run(self, params: calls.ProcessRun, link: LinkPort) -> calls.ProcessRan:
        """Run to the end; answers with the first MiB of each stream."""
        raise NotImplementedError

    async def start(self, params: calls.ProcessStart, link: LinkPort) -> calls.ProcessStarted:
        raise NotImplementedError

    async def attach(self, params: calls.ProcessAttach, link: LinkPort) -> calls.ProcessAttached:
        raise NotImplementedError

    async def detach(self, params: calls.ProcessName, link: LinkPort) -> calls.Empty:
        raise NotImplementedError

    async def write_stdin(self, params: calls.WriteStdin) -> calls.StdinOffset:
        raise NotImplementedError

    async def close_stdin(self, params: calls.CloseStdin) -> calls.Empty:
        raise NotImplementedError

    async def resize(self, params: calls.Resize) -> calls.Empty:
        raise NotImplementedError

    async def signal(self, params: calls.SignalProcess) -> calls.Empty:
        raise NotImplementedError

    async def kill(self, params: calls.KillProcess) -> calls.Empty:
        raise NotImplementedError

    async def wait(self, params: calls.WaitProcess) -> ExitRecord:
        raise NotImplementedError

    async def get(self, params: calls.ProcessName) -> ProcessInfo:
        raise NotImplementedError

    async def list(self, params: calls.ProcessListParams) -> tuple[ProcessInfo, ...]:
        raise NotImplementedError

    async def forget(self, params: calls.ForgetProcess) -> calls.Empty:
        raise NotImplementedError

    def count(self, session: str, /) -> int:
        raise NotImplementedError

    async def end_session(self, session: str, /) -> None:
        raise NotImplementedError

    async def end_all(self) -> None:
        raise NotImplementedError
