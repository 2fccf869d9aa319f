"""The process service: one command of a session, from `process.start` to `process.forget`.

Rules
- A process has its id before anything happens, and keeps it until it is forgotten; ids never name two processes.
- A started process belongs to its session, not to a link: links come and go.
- Killing is done even where the audit log refuses the record; starting and signalling are not.
- An exit is published and recorded once. The launcher forgets a process only after its exit is durable.

Sans policy and sans sandbox: those are asked in `process_starting`. Encoding is the caller's. `run` and `start`, input, who has to go, the
end of many, and what was adopted are in rooms of their own: `process_running`, `process_input`, `process_forgetting`, `process_closing`,
`process_adopting`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import trio

from coworkd.model import calls
from coworkd.model.errors import InvalidState, NotFound
from coworkd.model.ports import (
    EarlyAudit,
    EventPort,
    ExitListener,
    LauncherPort,
    LinkPort,
    PolicyPort,
    SessionDirectory,
)
from coworkd.model.process import ExitRecord, ProcessInfo
from coworkd.services.process_adopting import Adopter
from coworkd.services.process_attach import Attacher
from coworkd.services.process_building import Builder
from coworkd.services.process_carrying import Carried, carry
from coworkd.services.process_closing import Closer
from coworkd.services.process_ending import Ender
from coworkd.services.process_forgetting import Forgetter
from coworkd.services.process_input import Inputs
from coworkd.services.process_limits import ProcessLimits
from coworkd.services.process_list import compose_start
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_looking import Looker
from coworkd.services.process_lost import Losses
from coworkd.services.process_reader import EncodeNotification, EncodeOutput
from coworkd.services.process_request import parse_seconds
from coworkd.services.process_running import Runner
from coworkd.services.process_starting import Compose, OpenFiles, Starter
from coworkd.services.process_table import ProcessTable

_UPKEEP_INTERVAL_S = 60.0
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
        self._nursery: trio.Nursery | None = None
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
        self._forgetter = Forgetter(table=self._table, launcher=launcher, ender=self._ender, later=self._later)
        self._inputs = Inputs(table=self._table, launcher=launcher, audit=audit)
        self.write_stdin, self.close_stdin = self._inputs.write_stdin, self._inputs.close_stdin
        self.resize, self.signal = self._inputs.resize, self._inputs.signal
        self._runner = self._make_runner()
        self.run, self.start, self.callers = self._runner.run, self._runner.start, self._runner.callers
        self._adopter = self._make_adopter()
        self.adoption = self._adopter.adoption  # what was taken over; it grows
        self.take_lost = self._make_losses().take
        closer = Closer(table=self._table, ender=self._ender)
        self.end_session, self.end_all, self.terminate_all = closer.end_session, closer.end_all, closer.terminate_all
        self._looker = Looker(table=self._table, measured=measured)
        self.wait, self.get, self.list = self._looker.wait, self._looker.get, self._looker.list
        self.count, self.state_counts = self._looker.count, self._looker.state_counts
        self.find_by_ancestor, self.only_one_at = self._looker.find_by_ancestor, self._looker.only_one_at

    def _make_runner(self) -> Runner:
        return Runner(
            table=self._table,
            starter=self._starter,
            builder=self._builder,
            attacher=self._attacher,
            inputs=self._inputs,
            ender=self._ender,
            forgetter=self._forgetter,
            limits=self._limits,
            add=self._add,
            later=self._later,
        )

    def _make_adopter(self) -> Adopter:
        return Adopter(
            launcher=self._launcher,
            table=self._table,
            builder=self._builder,
            ender=self._ender,
            attacher=self._attacher,
            add=self._add,
            vanished=self._runner.caller_vanished,
            unsettled=self._runner.watch_start,
        )

    def _make_losses(self) -> Losses:
        return Losses(
            table=self._table,
            record_failure=self._starter.record_failure,
            add=self._add,
            vanished=self._runner.caller_vanished,
            adoption=self.adoption,
        )

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt what the launcher kept, then own every task of every process. Never returns; started when calls may come.

        Cancelled, it lets go of descriptors and ends nothing: commands live on in the launcher. See `end_all`.
        """
        self._builder.open()
        self._runner.open()
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._builder.serve)
                self._nursery.start_soon(self._runner.serve)
                await self._adopter.adopt_all()
                task_status.started()
                while True:
                    with trio.move_on_after(_UPKEEP_INTERVAL_S):
                        await self._launcher.wait_adopted()
                    self._forgetter.forget_when_read(self._table.surplus())
                    await self._adopter.adopt_all()
        finally:
            self._nursery = None
            self._runner.close()
            for process in (*self._table.where(), *self._table.parting):
                process.close()
            self._builder.close()

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
            self._forgetter.forget_when_read(self._table.surplus())

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
        self._forgetter.forget_when_read([process])
        return calls.Empty()

    # -- for other services -------------------------------------------------------------------------------------

    def carry(self) -> tuple[Carried, ...]:
        """Copies of the ended ones, for a coworkd that comes up anew in this process. See `process_carrying`."""
        ended = self._table.where(lambda process: process.record is not None and not process.one_shot)
        return tuple(carry(process) for process in ended)

    @property
    def started_total(self) -> int:
        """How many commands were started."""
        return self._runner.started_total

    @property
    def start_errors_total(self) -> int:
        """How many could not be."""
        return self._runner.start_errors_total

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

    def _add(self, id: str, session: str, argv: tuple[bytes, ...], *, one_shot: bool, adopted: bool) -> LiveProcess:
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
            self._forgetter.forget_when_read(too_many)

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

    def _later(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task of this service. Once it has stopped there is none to start: commands are the launcher's then."""
        if self._nursery is not None:
            self._nursery.start_soon(task, *arguments)


def _say_nothing(process: LiveProcess) -> None:
    """The start of what was adopted was told by the coworkd before us."""
