"""Running a command: `process.run` and `process.start`, from the call to its answer.

Rules
- `start` answers once the command's exec is known, `run` once its end is; a command that never ran is an error, and leaves nothing.
- A one-shot (`run`) belongs to its caller: it is killed when the caller's link ends, and forgotten once answered.
- One whose start takes too long (`process_patience`) is ended, and one that does not end then either is let go of all the same.

The way into the launcher is `process_starting`; what is known of the process from then on is in `process_live`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.ports import LinkPort
from coworkd.services.process_adopting import Add
from coworkd.services.process_attach import Attacher
from coworkd.services.process_building import Builder
from coworkd.services.process_callers import Callers
from coworkd.services.process_ending import Ender
from coworkd.services.process_forgetting import Forgetter
from coworkd.services.process_input import Inputs
from coworkd.services.process_limits import ProcessLimits
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_patience import Patience
from coworkd.services.process_reader import ProcessReader
from coworkd.services.process_request import StartRequest, parse_run, parse_start
from coworkd.services.process_starting import Launched, Starter
from coworkd.services.process_table import ProcessTable


class Runner:
    """Runs commands between `open` and `close`; `serve` watches how long they take to begin. Starts its tasks by `later`."""

    def __init__(
        self,
        *,
        table: ProcessTable,
        starter: Starter,
        builder: Builder,
        attacher: Attacher,
        inputs: Inputs,
        ender: Ender,
        forgetter: Forgetter,
        limits: ProcessLimits,
        add: Add,
        later: Callable[..., None],
    ) -> None:
        self._table = table
        self._starter = starter
        self._builder = builder
        self._attacher = attacher
        self._inputs = inputs
        self._ender = ender
        self._forgetter = forgetter
        self._limits = limits
        self._add = add
        self._later = later
        self._open = False
        self._patience = Patience(limits.start_s, lambda process: later(self._give_up, process))
        self.callers = Callers(self.caller_vanished, later)
        self.started_total = self.start_errors_total = 0

    def open(self) -> None:
        """Commands may be started, until `close`."""
        self._open = True

    async def serve(self) -> None:
        """Watch the time of those that start, until cancelled."""
        await self._patience.serve()

    def close(self) -> None:
        """Whoever asks from now on is told to ask again."""
        self._open = False

    # -- verbs --------------------------------------------------------------------------------------------------

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
            self.caller_vanished(process)
            raise
        finally:
            in_time = self._patience.let_go(process)
            self.callers.discard(link, process)
        if process.record is None or not in_time:
            await self._refuse_start(process)
        self.started_total += 1
        answer = process.answer(process.record, self._limits.spool.stream_bytes)
        self._forgetter.forget(process)
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

    # -- from an id to the exec, or not --------------------------------------------------------------------------

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
        if not self._open:
            raise Unavailable("the process service is not running; try again")
        id = self._table.reserve(request.id, one_shot=request.one_shot)
        return self._add(id, request.session, request.argv, one_shot=request.one_shot, adopted=False)

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

    async def _clean_up(self, process: LiveProcess, error: CoworkError) -> None:
        if process.id in self._table:
            self.start_errors_total += 1
            await self._starter.record_failure(process, error)
            process.abandon()
            if process.never_ran:
                self._forgetter.forget(process)
            else:  # somebody may have come to it, and has its exit still to hear
                self._forgetter.forget_when_read([process])

    # -- what nobody waits for ----------------------------------------------------------------------------------

    def caller_vanished(self, process: LiveProcess) -> None:
        """End a process nobody will ask for, and forget it."""
        self._later(self._end_orphan, process)

    async def _end_orphan(self, process: LiveProcess) -> None:
        await self._ender.end_unwatched(process, "killed", "its caller has gone")
        await process.over.wait()
        if process.record is None:
            await self._clean_up(process, process.start_failure())
        else:
            await process.recorded.wait()
            self._forgetter.forget(process)

    def watch_start(self, process: LiveProcess) -> None:
        """Let go of an adopted one, should it turn out never to have run."""
        self._later(self._await_start, process)

    async def _await_start(self, process: LiveProcess) -> None:
        await process.settled.wait()
        if process.never_ran:
            await self._clean_up(process, process.start_failure())
