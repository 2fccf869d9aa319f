"""One process while coworkd knows it: its streams, its readers, and the road from spawn to exit record.

    starting ──Started──▶ running ──Exited, or the launcher lost──▶ draining ──▶ ended: `over`
        └──StartError──▶ failed: `over`, without a record

Rules
- Exit is not EOF: after the exit the pipes are drained for at most `drain_s`; then the record is made, once, and is never
  changed. A stream that is still open goes on being read.
- A full spool does not hold back what a command left in its pipe: at the exit it grows by as much as the pipe can hold.
- `settled` says that the command's exec is known (or that it never came), `over` that nothing more will be learned,
  `recorded` that its end is in the audit log, or was refused by it (`unlogged`).

It asks nothing of the launcher and writes no audit record: `processes` does. All calls are made from trio's thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from coworkd.model.calls import PerStream, ProcessRan, TruncatedStreams
from coworkd.model.errors import CoworkError, StartFailed, Unavailable
from coworkd.model.launch import Exited, Notice, Started, StartError
from coworkd.model.names import OsBytes
from coworkd.model.ports import LinkPort
from coworkd.model.process import ExitReason, ExitRecord, ProcessInfo, ProcessState, StreamName
from coworkd.services.process_exit import LOST, judge_exit, judge_output
from coworkd.services.process_gate import Gate
from coworkd.services.process_note import ProcessNote
from coworkd.services.process_reader import ProcessReader
from coworkd.services.pumps import Pump
from coworkd.services.spools import Spool
from coworkd.services.spools_disk import DiskPump, DiskSpool
from coworkd.services.stdin import Stdin
from coworkd.services.terminal import Terminal


class LiveProcess:
    """One process. Owns its spools, pumps, stdin and terminal until `close`."""

    def __init__(
        self,
        id: str,
        session: str,
        argv: tuple[bytes, ...],
        *,
        one_shot: bool,
        drain_s: float,
        clock: Callable[[], float],
        later: Callable[..., None],
        ended: Callable[[LiveProcess, ExitRecord], None],
        failed: Callable[[LiveProcess, OSError], None],
        began: Callable[[LiveProcess], None] = lambda process: None,
    ) -> None:
        """`later` starts a task that outlives the caller; `began` is called when its exec is known; `ended` once, with the exit record;
        `failed` where a stream can no longer be kept, so that the command would wait for ever.
        """
        self.id = id
        self.session = session
        self.argv = argv
        self.one_shot = one_shot
        self.started_at = clock()
        self.pid: int | None = None
        self.monitor_pid: int | None = None  # its bubblewrap: known before anything of it runs
        self.init_pid: int | None = None
        """The first process of its sandbox; gone when the process does not run any more."""
        self.streams: dict[StreamName, Spool] = {}
        self.disk_files: dict[StreamName, int] = {}  # those its spools are yet to take over
        self.readers: list[ProcessReader] = []
        self.expected_until = -math.inf
        """Till then (trio's clock) those who read it over a restart may come back."""
        self.stdin: Stdin | None = None
        self.terminal: Terminal | None = None
        self.note = ProcessNote()
        """What the launcher keeps of it for the coworkd after this one."""
        self.ended_by: ExitReason | None = None
        self.asked_for = False
        """Whether the launcher was asked for it. Before that it waits for its session, and whoever ends that has nothing to wait for."""
        self.spawned = self.started = self.closed = False
        self.forgotten = False
        """Nobody may ask for it any more; the launcher forgets it once its end is recorded."""
        self.gate = Gate()
        self.unlogged = False  # the log has refused its end, and is asked again: the launcher keeps it until then
        self.terminal_error: str | None = None
        self.start_error: StartError | None = None
        self.exited: Exited | None = None
        self.record: ExitRecord | None = None
        self.lost = False
        self.settled = trio.Event()
        self.over = trio.Event()
        self.recorded = trio.Event()
        self.terminal_known = trio.Event()
        self.terminal_known.set()
        self._pumps: list[Pump | DiskPump] = []
        self._unwatched: list[Callable[[], None]] = []
        self._early: list[Notice | None] = []
        self._clock, self._drain_s, self._later = clock, drain_s, later
        self._began, self._failed, self._ended = began, failed, ended
        self._drained = trio.Event()
        self._ending = self._closing = self._start_told = False

    # -- what is asked of it ------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Its tree may still be there."""
        return not self.over.is_set() and not self._ending

    @property
    def ancestors(self) -> tuple[int, ...]:
        """Those of everything in its sandbox and the command itself, as far as they are known."""
        return tuple(pid for pid in (self.pid, self.init_pid, self.monitor_pid) if pid)

    @property
    def may_act(self) -> bool:
        """Whether its command was let in, heard of or not, and its tree may still be there."""
        return self.running and (self.started or self.gate.is_open())

    @property
    def never_ran(self) -> bool:
        """Nothing will come of it, and there is no exit to tell."""
        return self.over.is_set() and self.record is None

    @property
    def state(self) -> ProcessState:
        if self._ending:
            return "exited"
        return "running" if self.started else "starting"

    @property
    def kept_bytes(self) -> int:
        return sum(spool.kept_bytes for spool in self.streams.values())

    @property
    def output_bytes(self) -> int:
        return sum(spool.total for spool in self.streams.values())

    def answer(self, record: ExitRecord, limit_bytes: int) -> ProcessRan:
        """The answer of `process.run`."""
        stdout, stderr = self.streams["stdout"], self.streams["stderr"]
        return ProcessRan(
            exit=record.exit,
            stdout=stdout.read(0, limit_bytes)[1],
            stderr=stderr.read(0, limit_bytes)[1],
            truncated=TruncatedStreams(stdout=stdout.lost, stderr=stderr.lost),
            bytes=PerStream(stdout=stdout.total, stderr=stderr.total),
            rusage=record.rusage,
            output=record.output,
            started_at=record.started_at,
            ended_at=record.ended_at,
        )

    def info(self) -> ProcessInfo:
        return ProcessInfo(
            process=self.id,
            session=self.session,
            argv=tuple(OsBytes(word) for word in self.argv),
            state=self.state,
            pid=self.pid,
            started_at=self.started_at,
            streams={name: (spool.first, spool.end) for name, spool in self.streams.items()},
            exit=self.record,
        )

    def exit_params(self) -> Mapping[str, Any]:
        """The parameters of `process.exit`. Only once there is a record."""
        params: dict[str, Any] = msgspec.to_builtins(self.record)
        return params

    # -- what it is made of -------------------------------------------------------------------------------------

    def add_pump(self, pipe_fd: int, spool: Spool) -> Pump:
        pump = Pump(pipe_fd, spool, ended=self.stream_ended, failed=lambda error: self._failed(self, error))
        self._pumps.append(pump)
        return pump

    def when_started(self, begin: Callable[[], None]) -> None:
        """Have its pipes watched from its exec on, or its end: for one that may be over before anybody can look."""
        self._unwatched.append(begin)

    def add_disk_pump(self, pipe_fd: int, spool: DiskSpool) -> DiskPump:
        pump = DiskPump(pipe_fd, spool, ended=self.stream_ended, failed=lambda error: self._failed(self, error))
        self._pumps.append(pump)
        return pump

    def expect_terminal(self) -> None:
        """Its terminal is to come out of the sandbox: `terminal_known` waits for it."""
        self.terminal_known = trio.Event()

    def set_terminal(self, terminal: Terminal, stdin: Stdin) -> None:
        self.terminal, self.stdin = terminal, stdin
        self.terminal_known.set()

    def terminal_missing(self, why: str) -> None:
        """No terminal came: its stream ends empty."""
        self.terminal_error = why
        for spool in self.streams.values():
            spool.finish()
        self.terminal_known.set()
        self.stream_ended()

    def add_reader(self, reader: ProcessReader) -> None:
        self.readers.append(reader)
        if self.record is not None:
            reader.exited(self.record, self.exit_params())

    def reader_gone(self, reader: ProcessReader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
        if self._closing and not self.readers and not self.closed:
            self.close()

    def readers_of(self, link: LinkPort) -> list[ProcessReader]:
        return [reader for reader in self.readers if reader.link is link]

    # -- what it learns -----------------------------------------------------------------------------------------

    def built(self) -> None:
        """It has its streams: what was learned before, while the answer to the spawn was on its way, counts now."""
        self.spawned = True
        early, self._early = self._early, []
        for notice in early:
            self.learn(notice)

    def learn(self, notice: Notice | None) -> None:
        """One notice of the launcher's, in order; None when the launcher is lost."""
        if self.over.is_set() or self._ending:
            return
        if not self.spawned:
            self._early.append(notice)
            return
        if isinstance(notice, Started):
            self._learn_start(notice)
            self._watch_pipes()
            self.tell_start()
            self.settled.set()
        elif isinstance(notice, StartError):
            self.start_error = notice
            self.settled.set()
            self.over.set()
        elif notice is None and not self.started and not self.gate.shut():
            self.lost = True
            self.settled.set()
            self.over.set()
        else:
            self._learn_end(notice)

    def stream_ended(self) -> None:
        """A stream has given its last byte."""
        if self._ending and self._all_ended():
            self._drained.set()

    def abandon(self) -> None:
        """It was never spawned: nothing will come of it."""
        self.settled.set()
        self.over.set()
        self.recorded.set()

    def start_failure(self) -> CoworkError:
        """Why it never ran, or is taken not to."""
        if self.start_error is not None:
            error = self.start_error
            details = {"stage": error.stage, "process": self.id}
            return StartFailed(error.message, **details, **({} if error.errno is None else {"errno": error.errno}))
        if self.lost:
            return Unavailable("the launcher has gone, and every command with it; try again", process=self.id)
        why = self.terminal_error or "the sandbox did not get as far as the command in time"
        return StartFailed(why, stage="sandbox_setup", process=self.id)

    def tell_start(self) -> None:
        """Have it heard that it has begun, once; of one whose end has come with its start nobody has to before that was answered."""
        if self.started and not self._start_told:
            self._start_told = True
            self._began(self)

    def _learn_start(self, started: Started) -> None:
        self.started, self.pid, self.started_at = True, started.payload_pid, started.at
        self.init_pid, self.monitor_pid = started.init_pid, started.monitor_pid

    def _learn_end(self, exited: Exited | None) -> None:
        self._ending = True
        self.exited = exited
        self.lost = exited is None
        if exited is None:
            self.started = True  # or it may have been, which nobody can know any more
        elif exited.started is not None:
            self._learn_start(exited.started)
        self.settled.set()
        if self.stdin is not None and self.terminal is None:  # closing a terminal would drop what it still has to give
            self.stdin.close(by="its end")
        for pump in self._pumps:
            if pump.spool.blocking:
                pump.spool.extend(pump.pipe_bytes() + 1)  # and for the end behind it to be seen
            pump.take()
        if self._all_ended():
            self._conclude()
        else:
            self._watch_pipes()
            self._later(self._drain)

    def _watch_pipes(self) -> None:
        while self._unwatched:
            self._unwatched.pop()()

    async def _drain(self) -> None:
        with trio.move_on_after(self._drain_s):
            await self._drained.wait()
        self._conclude()

    def _conclude(self) -> None:
        exited = self.exited
        self.record = ExitRecord(
            process=self.id,
            session=self.session,
            exit=LOST if exited is None else judge_exit(exited, self.ended_by),
            output=judge_output(self.streams.values()),
            bytes={name: spool.total for name, spool in self.streams.items()},
            rusage=None if exited is None else exited.rusage,
            started_at=self.started_at,
            ended_at=self._clock() if exited is None else exited.at,
        )
        self._ended(self, self.record)
        if self.readers:
            params = self.exit_params()
            for reader in tuple(self.readers):
                reader.exited(self.record, params)
        self.over.set()

    def _all_ended(self) -> bool:
        return all(spool.eof for spool in self.streams.values())

    def close_when_read(self) -> None:
        """Let everything go once those who read it have had all of it. It has ended."""
        self._closing = True
        if not self.readers:
            self.close()

    def close_but_end(self) -> None:
        """Let everything go but its end: those who read it hear how much of the output they do not have, and the exit. It has ended."""
        self._let_go()
        self.close_when_read()

    def give_up_readers(self, error: CoworkError) -> None:
        """End the links of those who do not even take how it ended, with `error`."""
        for reader in tuple(self.readers):
            reader.link.finish(error)

    def close(self) -> None:
        """Let everything go: readers are detached, descriptors closed, kept output is gone. Idempotent."""
        self.closed = True
        for reader in tuple(self.readers):
            reader.leave()
        self._let_go()

    def _let_go(self) -> None:
        """What it holds of the kernel's. Idempotent."""
        for pump in self._pumps:
            pump.close()
        if self.stdin is not None:
            self.stdin.close()
        if self.terminal is not None:
            self.terminal.close()
        for spool in self.streams.values():
            spool.close()
        while self.disk_files:
            os.close(self.disk_files.popitem()[1])
