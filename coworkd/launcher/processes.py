"""The launcher's commands: what is asked of them, and what becomes of them.

Rules
- What is asked is checked again here: uid, filters, names. Nothing is decided.
- A command whose supervisor goes before it was let in never runs; the next supervisor is told so.
- A sandbox that waited and has died is changed for another, and nobody hears of it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from coworkd.launcher.filters import Filters
from coworkd.launcher.pool import Pool
from coworkd.launcher.process import Process
from coworkd.launcher.readers import Readers
from coworkd.launcher.reaper import Reaper
from coworkd.launcher.session import Session
from coworkd.launcher.spawn import Spawner, is_name
from coworkd.launcher.supervisor import Supervisor
from coworkd.model import launch

_PROCESS_LIMIT = 4096
_NOFILE_MIN = 64
_SHIM_SAYS_BYTES = 256
_END_S = 5.0
_PAUSED = "the session is paused, and no command begins in it"


class Processes:
    """Every command, from `Spawn` to `Forget`."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        *,
        readers: Readers,
        supervisor: Supervisor,
        reaper: Reaper,
        spawner: Spawner,
        filters: Filters,
        pool: Pool,
        on_killed: Callable[[str], None],
    ) -> None:
        """`on_killed` is told of the session in which one is killed."""
        self._sessions = sessions
        self._on_killed = on_killed
        self._readers = readers
        self._supervisor = supervisor
        self._reaper = reaper
        self._spawner = spawner
        self._filters = filters
        self._pool = pool
        self._processes: dict[str, Process] = {}
        self._quiet: dict[str, Process] = {}
        """Those nobody waits to hear of before they have ended, the oldest first."""

    def handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {
            launch.PutFilter: self._put_filter,
            launch.Spawn: self._spawn,
            launch.Annotate: self._annotate,
            launch.Abandon: self._abandon,
            launch.Signal: self._signal,
            launch.Kill: self._kill,
            launch.Forget: self._forget,
            launch.Release: self._release,
            launch.Keep: self._keep,
        }

    def runs_in(self, session: str) -> bool:
        """Whether a command of the session lives."""
        return any(p.living and p.session == session for p in self._processes.values())

    def group_of(self, session: str, process: str) -> str | None:
        """The cgroup of a command that runs in the session."""
        found = self._processes.get(process)
        return found.bwrap.cgroup_path if found is not None and found.living and found.session == session else None

    def outlives_kill(self, session: str) -> bool:
        """Whether a command of the session was killed and lives still."""
        return any(p.living and p.bwrap.killed and p.session == session for p in self._processes.values())

    def tell_adopted(self, request_id: int) -> None:
        """Tell a new supervisor of each."""
        for process in self._processes.values():
            self._supervisor.send(process.adopted(request_id), list(process.fds.values()))

    def drop_gated(self) -> None:
        """The supervisor has gone: who was not let in never will be, and the next supervisor hears of it: its start may be recorded."""
        for process in self._processes.values():
            if not process.gated:
                continue
            process.bwrap.kill()
            # One whose link alone has gone may have opened it a moment ago: that is told as a kill then.
            if process.gated:
                process.setup_error = (
                    "sandbox_setup",
                    None,
                    "coworkd ended before it let the command in; start it again",
                )

    def end(self) -> None:
        """Kill them all and wait until they are gone, 5 s at most; let go of what they left."""
        living = [process.bwrap for process in self._processes.values() if process.living]
        for bwrap in living:
            bwrap.kill()
        self._reaper.wait_gone(living, _END_S)
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    # -- news of one --------------------------------------------------------------------------------------------

    def _tell(self, process: Process) -> None:
        """What has become of it."""
        self._hear_shim(process)
        bwrap = process.bwrap
        if bwrap.gone and process.can_move:
            self._move(process)
            return
        # Its child's last words first, and before its init has gone: somebody waits for what is told then.
        if bwrap.monitor_status is not None and process.living and not process.can_move:
            error = bwrap.take_error()
            if error:
                process.learn_error(error.decode(errors="replace"))
        for notice in process.notices():
            if not process.abandoned:
                self._supervisor.send(notice)
            if isinstance(notice, launch.StartError | launch.Exited):
                self._settle(process)
        if process.started is None and process.living and process.quiet_until > time.monotonic():
            self._quiet[process.name] = process

    def _settle(self, process: Process) -> None:
        """Tidy up after the last notice, which somebody waits for, was sent."""
        self._drop_exec(process)
        self._quiet.pop(process.name, None)
        self._pool.want_after_end(process.session)
        if process.abandoned:
            del self._processes[process.name]
            process.close()

    def _hear_shim(self, process: Process) -> None:
        """Its pipe: `+` once only the exec is left, then its end (a good exec) or `stage errno`, and its end."""
        while process.exec_fd is not None:
            try:
                said = os.read(process.exec_fd, _SHIM_SAYS_BYTES)
            except BlockingIOError:
                if not process.bwrap.gone:
                    return
                # Whoever could say more is gone. A child of ours that was forked meanwhile has a copy, until it lets go of it.
                said = b""
            process.shim_said += said
            if not said or len(process.shim_said) >= _SHIM_SAYS_BYTES:
                self._drop_exec(process)
                process.learn_shim()

    def _drop_exec(self, process: Process) -> None:
        if process.exec_fd is not None:
            self._readers.drop(process.exec_fd)
            process.exec_fd = None

    # -- requests -----------------------------------------------------------------------------------------------

    def _put_filter(self, request: launch.PutFilter, _: list[int]) -> None:
        if self._filters.put(request.sha256, request.bpf):
            self._supervisor.send(launch.Done(id=request.id))
        else:
            self._supervisor.refuse(request.id, "filter", errno.EINVAL, "the program is not the one its hash names")

    def _spawn(self, request: launch.Spawn, _: list[int]) -> None:
        session = self._sessions.get(request.session)
        problem = self._judge(request, session)
        if problem is not None or session is None:
            self._supervisor.refuse(request.id, "policy_denied", errno.EPERM, problem or "no such session")
            return
        if session.paused:
            self._supervisor.refuse(request.id, "session", errno.EBUSY, _PAUSED)
            return
        try:
            warm = self._pool.take(session, request)
            if warm is None:
                self._reaper.expect()
            process = self._spawner.spawn(request, session, warm)
        except OSError as error:
            self._supervisor.refuse(
                request.id, "resources", error.errno, f"the sandbox could not be started: {error.strerror}"
            )
            return
        self._processes[request.process] = process
        self._begin(process)
        try:
            self._supervisor.send(process.spawned, [*process.fds.values(), process.gate.write])
        except OSError:  # it has to wait, and no descriptor is left for its copies
            self._drop_gated(process)
            raise
        process.gate.give()
        try:
            process.hand_over()
        except OSError:
            self._move(process)
        self._pool.want_after_start(session.name)

    def _judge(self, request: launch.Spawn, session: Session | None) -> str | None:
        if session is None:
            return f"session {request.session!r} is not open"
        if not is_name(request.process):
            return "that is no name of a process"
        if (request.uid, request.gid) != (session.uid, session.gid):
            return "the uid asked for is not the session's"
        if request.process in self._processes:
            return f"process {request.process!r} exists already"
        if len(self._processes) >= _PROCESS_LIMIT:
            return f"{_PROCESS_LIMIT} processes are kept already; forget some"
        if any(name not in self._filters for name in request.filters):
            return "a seccomp filter is missing: no filter, no spawn"
        if not request.argv or not request.argv[0]:
            return "the command is empty"
        if b"\0" in b"".join((request.cwd, *request.argv, *request.environment, *request.bwrap_args, *request.shim)):
            return "a word has a NUL in it, which the kernel takes for its end"
        if len(request.note) > launch.NOTE_LIMIT_BYTES:
            return "the note is too long"
        if request.tty is not None and not request.shim:
            return "a terminal needs a shim"
        if request.rlimits.nofile < _NOFILE_MIN:
            return (
                f"nofile is {request.rlimits.nofile}: with fewer than {_NOFILE_MIN} descriptors no sandbox can be built"
            )
        return None

    def _annotate(self, request: launch.Annotate, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        if len(request.note) > launch.NOTE_LIMIT_BYTES:
            self._supervisor.refuse(request.id, "note", errno.E2BIG, "the note is too long")
            return
        process.note = request.note
        self._supervisor.send(launch.Done(id=request.id))

    def _move(self, process: Process) -> None:
        """The sandbox that waited for it has died: it gets another. A command that was ended meanwhile needs none."""
        session = self._sessions.get(process.session)
        if session is None or not process.can_move or not process.living:
            return
        self._pool.count_died()
        self._drop_exec(process)
        if session.paused:
            process.give_up("resources", errno.EBUSY, _PAUSED)
            self._tell(process)
            return
        try:
            self._reaper.expect()
            bwrap = self._spawner.build_again(process, session)
        except OSError as error:
            process.give_up("resources", error.errno, f"the sandbox could not be started: {error.strerror}")
            self._tell(process)
            return
        process.bwrap.on_news = _nobody_asks
        process.bwrap.kill()  # it does not listen, and may not have gone yet
        process.move(bwrap)
        self._begin(process)
        try:
            process.hand_over()
        except OSError as error:  # that one has died too, or nothing can be handed over: its end is told by the reaper
            process.give_up("resources", error.errno, f"the sandbox could not be started: {error.strerror}")
            bwrap.kill()

    def _begin(self, process: Process) -> None:
        """It has a sandbox: from now on hear of that."""
        process.bwrap.on_news = partial(self._tell, process)
        self._reaper.add(process.bwrap)
        if process.quiet_until > time.monotonic():
            self._quiet[process.name] = process
        else:
            self._quiet.pop(process.name, None)  # that of the sandbox before: nobody listens twice
            self._listen(process)

    def _listen(self, process: Process) -> None:
        """Hear of its exec where a shim does that."""
        if process.exec_fd is not None:
            self._readers.register_end(process.exec_fd, process.bwrap.on_news)

    def next_due(self) -> float | None:
        """When (monotonic) somebody has been quiet for long enough."""
        for process in self._quiet.values():
            return process.quiet_until
        return None

    def end_quiet(self, now: float) -> None:
        """Tell of those that run on."""
        while self._quiet and (due := self.next_due()) is not None and due <= now:
            process = self._quiet.pop(next(iter(self._quiet)))
            self._listen(process)
            self._tell(process)

    def _abandon(self, request: launch.Abandon, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        if not process.gated and process.living:
            self._supervisor.refuse(request.id, "gate", errno.EBUSY, "the command was let in already; kill it instead")
            return
        self._drop_gated(process)
        self._supervisor.send(launch.Done(id=request.id))

    def _drop_gated(self, process: Process) -> None:
        process.abandon()
        if not process.living:
            self._processes.pop(process.name, None)
            process.close()

    def _signal(self, request: launch.Signal, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        self._tell(process)  # a command may run of which nobody was woken yet
        try:
            process.bwrap.signal(request.signal)
        except OSError as error:
            self._supervisor.refuse(request.id, "signal", error.errno, str(error.strerror))
            return
        self._supervisor.send(launch.Done(id=request.id))

    def _kill(self, request: launch.Kill, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            process.bwrap.kill()
            self._on_killed(process.session)
            self._supervisor.send(launch.Done(id=request.id))

    def _forget(self, request: launch.Forget, _: list[int]) -> None:
        process = self._processes.get(request.process)
        if process is not None and process.living:
            self._supervisor.refuse(request.id, "busy", errno.EBUSY, "the command still runs")
            return
        if process is not None:
            del self._processes[request.process]
            process.close()
        self._supervisor.send(launch.Done(id=request.id))

    def _release(self, request: launch.Release, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            process.release(request.name)
            self._supervisor.send(launch.Done(id=request.id))

    def _keep(self, request: launch.Keep, fds: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        if len(fds) != 1 or request.name in process.fds:
            self._supervisor.refuse(
                request.id, "keep", errno.EINVAL, "exactly one new descriptor can be kept under a name"
            )
            return
        process.fds[request.name] = fds.pop()
        self._supervisor.send(launch.Done(id=request.id))

    def _find(self, request_id: int, name: str) -> Process | None:
        process = self._processes.get(name)
        if process is None:
            self._supervisor.refuse(request_id, "process", errno.ESRCH, f"no process {name!r}")
        return process


def _nobody_asks() -> None:
    """News of a sandbox that was given up."""
