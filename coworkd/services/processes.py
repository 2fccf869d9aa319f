"""The process service: one command of a session, from `process.start` to `process.forget`.

Rules
- A process has its id before anything happens, and keeps it until it is forgotten; ids never name two processes.
- `start` and `run` answer once the command's exec is known; a command that never ran is an error, and leaves nothing.
- A started process belongs to its session, not to a link: links come and go. A one-shot (`run`) belongs to its caller: it is
  killed when the caller's link ends, and forgotten once answered.
- Killing is done even where the audit log refuses the record; starting and signalling are not.
- An ended process that somebody reads, or may come back for, does not have to go for its bytes alone as long as those that are kept have
  room in memory (`process_kept`). One that has to go leaves those who read it the rest and the exit first, the last `_PARTING_LIMIT` of
  them; those before them leave the exit alone, and say what is gone. No link that lives misses an exit.
- An exit is published and recorded once. The launcher forgets a process only after its exit is durable.

Sans policy and sans sandbox: those are asked in `process_starting`. Encoding is the caller's. Input, the end of many, and what was
adopted are in rooms of their own: `process_input`, `process_closing`, `process_adopting`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import trio

from coworkd.model import calls
from coworkd.model.errors import (
    CoworkError,
    InvalidState,
    LimitExceeded,
    NotFound,
    Unavailable,
)
from coworkd.model.ports import (
    EarlyAudit,
    EventPort,
    ExitListener,
    LauncherPort,
    LinkPort,
    PolicyPort,
    SessionDirectory,
)
from coworkd.model.process import ExitReason, ExitRecord, ProcessInfo
from coworkd.services.process_adopting import Adopter
from coworkd.services.process_attach import Attacher
from coworkd.services.process_building import Builder
from coworkd.services.process_callers import Callers
from coworkd.services.process_carrying import Carried, carry
from coworkd.services.process_closing import Closer
from coworkd.services.process_ending import Ender
from coworkd.services.process_input import Inputs
from coworkd.services.process_limits import ProcessLimits
from coworkd.services.process_list import compose_start
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_looking import Looker
from coworkd.services.process_lost import Losses
from coworkd.services.process_patience import Patience
from coworkd.services.process_reader import EncodeNotification, EncodeOutput, ProcessReader
from coworkd.services.process_request import (
    StartRequest,
    parse_run,
    parse_seconds,
    parse_start,
)
from coworkd.services.process_starting import Compose, Launched, OpenFiles, Starter
from coworkd.services.process_table import ProcessTable

_UPKEEP_INTERVAL_S = 60.0
_PARTING_LIMIT = 64
"""A link that takes nothing must not make room for ever more: past so many the output of the one that had to go first goes."""
_TELLING_LIMIT = 1024
"""Past so many the links that have not taken how the first of them ended are told so, and ended."""

_log = logging.getLogger("coworkd.process")


class Processes:
    """All processes of this guest. `serve` runs it; it implements `ports.ProcessDirectory` and `ports.CallerDirectory`."""

    def __init__(
        self,
        *,
        launcher: LauncherPort,
        sessions: SessionDirectory,
        policies: PolicyPort,
        audit: EarlyAudit,
        events: EventPort,
        compose: Compose,
        encode_output: EncodeOutput,
        encode_notification: EncodeNotification,
        measured: Callable[[ProcessInfo], Awaitable[ProcessInfo]] | None = None,
        files: OpenFiles | None = None,
        limits: ProcessLimits | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        listeners: Iterable[ExitListener] = (),
    ) -> None:
        self._launcher, self._events = launcher, events
        self._limits = limits or ProcessLimits()
        self._clock, self._listeners = clock, tuple(listeners)
        self._starter = Starter(
            launcher=launcher,
            sessions=sessions,
            policies=policies,
            audit=audit,
            compose=compose,
            files=files,
            stream_bytes=self._limits.spool.stream_bytes,
            monotonic=monotonic,
        )
        self._ender = Ender(launcher=launcher, audit=audit, later=self._later, monotonic=monotonic)
        self._builder = Builder(launcher=launcher, limits=self._limits.spool, later=self._later)
        self._attacher = Attacher(
            encode_output, encode_notification, note=self._ender.note, later=self._later, unread=self._unread
        )
        self._table = ProcessTable(
            running_limit=self._limits.running,
            finished=self._limits.finished,
            awaited_bytes=self._limits.spool.total_bytes,
            awaited=self._attacher.awaited,
        )
        self.callers = Callers(self._caller_vanished, self._later)
        self._patience = Patience(self._limits.start_s, lambda process: self._later(self._give_up, process))
        self._adopter = self._make_adopter()
        self.adoption = self._adopter.adoption  # what was taken over; it grows
        self.take_lost = self._make_losses().take
        self._inputs = Inputs(table=self._table, launcher=launcher, audit=audit)
        self.write_stdin, self.close_stdin = self._inputs.write_stdin, self._inputs.close_stdin
        self.resize, self.signal = self._inputs.resize, self._inputs.signal
        closer = Closer(table=self._table, ender=self._ender)
        self.end_session, self.end_all, self.terminate_all = closer.end_session, closer.end_all, closer.terminate_all
        self._looker = Looker(table=self._table, measured=measured)
        self.wait, self.get, self.list = self._looker.wait, self._looker.get, self._looker.list
        self.count, self.state_counts = self._looker.count, self._looker.state_counts
        self.find_by_ancestor, self.only_one_at = self._looker.find_by_ancestor, self._looker.only_one_at
        self._nursery: trio.Nursery | None = None
        self.started_total = self.start_errors_total = 0

    def _make_losses(self) -> Losses:
        return Losses(
            table=self._table,
            record_failure=self._starter.record_failure,
            add=self._add,
            vanished=self._caller_vanished,
            adoption=self.adoption,
        )

    def _make_adopter(self) -> Adopter:
        return Adopter(
            launcher=self._launcher,
            table=self._table,
            builder=self._builder,
            ender=self._ender,
            attacher=self._attacher,
            add=self._add,
            vanished=self._caller_vanished,
            unsettled=lambda process: self._later(self._await_start, process),
        )

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt what the launcher kept, then own every task of every process. Never returns; started when calls may come.

        Cancelled, it lets go of descriptors and ends nothing: commands live on in the launcher. See `end_all`.
        """
        self._builder.open()
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._builder.serve)
                self._nursery.start_soon(self._patience.serve)
                await self._adopter.adopt_all()
                task_status.started()
                while True:
                    with trio.move_on_after(_UPKEEP_INTERVAL_S):
                        await self._launcher.wait_adopted()
                    self._forget_all(self._table.surplus())
                    await self._adopter.adopt_all()
        finally:
            self._nursery = None
            for process in (*self._table.where(), *self._table.parting):
                process.close()
            self._builder.close()

    # -- starting -----------------------------------------------------------------------------------------------

    async def run(self, params: calls.ProcessRun, link: LinkPort) -> calls.ProcessRan:
        """Run to the end; answers with the first MiB of each stream. Killed and forgotten when its caller has gone (see `Callers`).

        Raises `StartFailed`, `NotFound` for the session, `PolicyDenied`, `LimitExceeded`, `InvalidParams`, `DiskFailed` where
        the audit log refuses. A timeout is an answer, with what came until then.
        """
        request = parse_run(params)
        process, _ = await self._spawn(request, link)
        self.callers.add(link, process, params.request_id)
        try:
            if process.stdin is not None:
                self._later(self._inputs.feed, process, process.stdin, request.input)
            self._patience.hold(process)
            await process.over.wait()
        except trio.Cancelled:
            self._caller_vanished(process)
            raise
        finally:
            in_time = self._patience.let_go(process)
            self.callers.discard(link, process)
        if process.record is None or not in_time:
            await self._refuse_start(process)
        self.started_total += 1
        answer = process.answer(process.record, self._limits.spool.stream_bytes)
        self._forget(process)
        return answer

    async def start(self, params: calls.ProcessStart, link: LinkPort) -> calls.ProcessStarted:
        """Start; answers when the command's exec succeeded, with the link attached from offset 0 unless it asked not to be.

        Attaching is the last thing done, without a checkpoint behind it: an answer queued at once comes before output. Raises
        as `run`, and `AlreadyExists` for a given id.
        """
        readers: list[ProcessReader] = []

        def read(process: LiveProcess) -> None:
            if params.attach:
                readers.append(self._attacher.make_reader(process, link, acknowledged=params.acknowledge))

        try:
            process, launched = await self._spawn(parse_start(params), link, built=read)
            await self._wait_started(process)
        except BaseException:
            for reader in readers:
                reader.leave()
            raise
        self.started_total += 1
        for reader in readers:
            link.attach(reader)
        return calls.ProcessStarted(
            process=process.id, pid=process.pid or 0, started_at=process.started_at, narrowed=launched.narrowed
        )

    async def _spawn(
        self, request: StartRequest, link: LinkPort, *, built: Callable[[LiveProcess], None] = lambda process: None
    ) -> tuple[LiveProcess, Launched]:
        """`built` is called when its streams are there, before anything can come."""
        process = self._reserve(request)
        try:
            launched = await self._starter.launch(process, request, link.name)
            try:
                self._builder.build(process, launched.fds)
                built(process)
                if process.ended_by is not None:
                    self._later(self._ender.end_unwatched, process, process.ended_by, "asked for while it was starting")
                await self._starter.let_in(process, launched)
            except BaseException as error:
                await self._starter.abandon(process, launched, error)
                raise
        except BaseException:
            self.start_errors_total += 1
            self._table.remove(process)
            process.abandon()
            process.close()
            raise
        if launched.timeout_s is not None:
            self._later(self._ender.enforce_timeout, process, launched.timeout_s)
        return process, launched

    def _reserve(self, request: StartRequest) -> LiveProcess:
        if self._nursery is None:
            raise Unavailable("the process service is not running; try again")
        id = self._table.reserve(request.id, one_shot=request.one_shot)
        return self._add(id, request.session, request.argv, one_shot=request.one_shot)

    def _add(
        self, id: str, session: str, argv: tuple[bytes, ...], *, one_shot: bool, adopted: bool = False
    ) -> LiveProcess:
        process = LiveProcess(
            id,
            session,
            argv,
            one_shot=one_shot,
            drain_s=self._limits.spool.drain_s,
            clock=self._clock,
            later=self._later,
            ended=self._process_ended,
            failed=self._stream_failed,
            began=_say_nothing if adopted else self._process_began,
        )
        process.asked_for = adopted
        self._table.add(process)
        return process

    async def _wait_started(self, process: LiveProcess) -> None:
        """Return once the exec is known to have succeeded; raise why it has not. Cancelled, the process lives on."""
        self._patience.hold(process)
        try:
            await process.settled.wait()
            await process.terminal_known.wait()
        finally:
            in_time = self._patience.let_go(process)
        if in_time and not process.never_ran:
            if process.terminal_error is None or process.lost:
                return
            await self._give_up(process)
        await self._refuse_start(process)

    async def _give_up(self, process: LiveProcess) -> None:
        """End a command whose start has taken too long; one that does not end then either is no more to us."""
        await self._ender.end_unwatched(process, "killed", "it did not start")
        with trio.move_on_after(self._limits.start_s):
            await process.over.wait()
        if not process.over.is_set():
            process.abandon()
        process.terminal_known.set()  # it does not come any more

    async def _refuse_start(self, process: LiveProcess) -> NoReturn:
        """Clean up after a command that never ran, and raise why."""
        error = process.start_failure()
        await self._clean_up(process, error)
        raise error

    async def _await_start(self, process: LiveProcess) -> None:
        """Let go of an adopted one that turns out never to have run."""
        await process.settled.wait()
        if process.never_ran:
            await self._clean_up(process, process.start_failure())

    async def _clean_up(self, process: LiveProcess, error: CoworkError) -> None:
        if process.id in self._table:
            self.start_errors_total += 1
            await self._starter.record_failure(process, error)
            process.abandon()
            if process.never_ran:
                self._forget(process)
            else:  # somebody may have come to it, and has its exit still to hear
                self._forget_all([process])

    # -- links --------------------------------------------------------------------------------------------------

    async def attach(self, params: calls.ProcessAttach, link: LinkPort) -> calls.ProcessAttached:
        """Send output from the offsets given, elsewhere from the oldest byte kept, then the exit. Moves what was attached.

        One that is being started is waited for, since one that never runs has no exit: `NotFound`.
        """
        process = self._table.find(params.process)
        if not process.one_shot:
            await process.settled.wait()
            if process.never_ran:
                raise NotFound(f"process {process.id} could not be started", process=process.id)
        return self._attacher.attach(process, params, link)

    async def detach(self, params: calls.ProcessName, link: LinkPort) -> calls.Empty:
        """Send no more of it to this link; one that is not attached is passed over."""
        self._attacher.detach(self._table.find(params.process), link)
        return calls.Empty()

    async def ack(self, params: calls.ProcessAck, link: LinkPort) -> calls.Empty:
        """What this link has of an attached process; see `Attacher`."""
        self._attacher.acknowledge(self._table.find(params.process), params, link)
        return calls.Empty()

    def _unread(self, process: LiveProcess) -> None:
        """Nobody waits for it any more: now it may have to go."""
        if process.record is not None:
            self._forget_all(self._table.surplus())

    def _caller_vanished(self, process: LiveProcess) -> None:
        self._later(self._end_orphan, process, "killed", "its caller has gone")

    async def _end_orphan(self, process: LiveProcess, reason: ExitReason, why: str) -> None:
        """End a process nobody will ask for, and forget it."""
        await self._ender.end_unwatched(process, reason, why)
        await process.over.wait()
        if process.record is None:
            await self._clean_up(process, process.start_failure())
        else:
            await process.recorded.wait()
            self._forget(process)

    # -- ending ------------------------------------------------------------------------------------

    async def kill(self, params: calls.KillProcess) -> calls.Empty:
        """TERM to the group, then the end of the tree after `grace_s`; answers when that has begun."""
        grace_s = self._limits.grace_s if params.grace_s is None else parse_seconds(params.grace_s, "grace_s")
        await self._ender.end(self._table.find(params.process), "killed", grace_s=grace_s)
        return calls.Empty()

    async def forget(self, params: calls.ForgetProcess, link: LinkPort) -> calls.Empty:
        """Let an ended process and its output go; another link that reads it has the rest, and the exit, first."""
        process = self._table.find(params.process)
        if process.record is None or process.one_shot:
            raise InvalidState(f"process {process.id} still runs: kill it first", process=process.id)
        self._attacher.detach(process, link)
        self._forget_all([process])
        return calls.Empty()

    # -- for other services -------------------------------------------------------------------------------------

    def carry(self) -> tuple[Carried, ...]:
        """Copies of the ended ones, for a coworkd that comes up anew in this process. See `process_carrying`."""
        ended = self._table.where(lambda process: process.record is not None and not process.one_shot)
        return tuple(carry(process) for process in ended)

    @property
    def spool_bytes(self) -> int:
        """What all spools keep, in memory and on the session disk."""
        return sum(process.kept_bytes for process in self._table.where())

    @property
    def spool_memory(self) -> tuple[int, int]:
        """What spools in memory keep, and their bound."""
        budget = self._builder.budget
        return budget.used_bytes, budget.limit_bytes

    @property
    def output_bytes(self) -> int:
        """What all commands that are known have put out, kept or not."""
        return sum(process.output_bytes for process in self._table.where())

    # -- the beginning and the end of a process -----------------------------------------------------------------------------------

    def _process_began(self, process: LiveProcess) -> None:
        self._events.publish("process.start", compose_start(process))

    def _process_ended(self, process: LiveProcess, record: ExitRecord) -> None:
        self._looker.ended(record, process.ancestors)
        if process.note.recorded:  # by the coworkd before us, which told it, too
            process.recorded.set()
            self._tell_listeners(record)
        else:
            self._later(self._tell_end, process, record)
        if too_many := self._table.ended(process):
            self._forget_all(too_many)

    async def _tell_end(self, process: LiveProcess, record: ExitRecord) -> None:
        """Publish and record it. Nobody waits for that, so it leaves a turn to those who answer."""
        await trio.lowlevel.checkpoint()
        process.tell_start()
        self._events.publish("process.exit", process.exit_params())
        self._tell_listeners(record)
        await self._ender.record_exit(process)

    def _tell_listeners(self, record: ExitRecord) -> None:
        for listener in self._listeners:
            listener.exited(record)

    def _stream_failed(self, process: LiveProcess, error: OSError) -> None:
        _log.error("output of process %s cannot be kept any more, it is thrown away: %s", process.id, error)
        cut = {name: spool.cut_at for name, spool in process.streams.items() if spool.cut_at is not None}
        told = {"process": process.id, "session": process.session, "cut": cut, "errno": error.errno}
        self._events.publish("process.truncated", told)

    def _forget_all(self, processes: list[LiveProcess]) -> None:
        """Forget those that have ended, once those who read them have all."""
        for process in processes:
            self._forget(process, process.close_when_read)
        self._table.part(processes)
        for process in self._table.parting_before(_PARTING_LIMIT):
            process.close_but_end()
        for process in self._table.parting_before(_TELLING_LIMIT):
            process.give_up_readers(
                LimitExceeded(
                    f"{_TELLING_LIMIT} commands have ended since process {process.id}, how that ended is still not read here:"
                    " connect again, and read what is attached",
                    process=process.id,
                    limit=_TELLING_LIMIT,
                )
            )

    def _forget(self, process: LiveProcess, close: Callable[[], None] | None = None) -> None:
        if self._table.remove(process):
            self._launcher.unwatch(process.id)
            (close or process.close)()
            process.forgotten = True
            if process.recorded.is_set() and not process.unlogged:
                self._later(self._ender.forget, process)

    def _later(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task of this service. Once it has stopped there is none to start: commands are the launcher's then."""
        if self._nursery is not None:
            self._nursery.start_soon(task, *arguments)


def _say_nothing(process: LiveProcess) -> None:
    """The start of what was adopted was told by the coworkd before us."""
