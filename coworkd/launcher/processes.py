"""The launcher's commands: what is asked of them, and what becomes of them.

Rules
- One reaper: `wait4(-1)` here and nowhere else. Facts of the connector and the status pipes are taken before each reaping, so that a
  reaped pid is always known by then.
- What is asked is checked again here: uid, filters, names. Nothing is decided.
- A command whose supervisor goes before it was let in never runs.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from coworkd.launcher.exec_watch import open_watch
from coworkd.launcher.process import Process
from coworkd.launcher.readers import Readers
from coworkd.launcher.session import Session
from coworkd.launcher.spawn import Spawner, is_name
from coworkd.launcher.standbys import Standbys
from coworkd.launcher.supervisor import Supervisor
from coworkd.model import launch
from coworkd.system import sha256

_PROCESS_LIMIT = 4096
_NOFILE_MIN = 64


class Processes:
    """Every command, from `Spawn` to `Forget`."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        *,
        readers: Readers,
        supervisor: Supervisor,
        spawner: Spawner,
        standbys: Standbys,
        on_reaped: Callable[[int], None],
        on_killed: Callable[[str], None],
    ) -> None:
        """`on_reaped` is told of each child that is gone, whoever's it was, `on_killed` of the session in which one is killed."""
        self._sessions = sessions
        self._on_reaped = on_reaped
        self._on_killed = on_killed
        self._readers = readers
        self._supervisor = supervisor
        self._spawner = spawner
        self._standbys = standbys
        self._processes: dict[str, Process] = {}
        self._filters: dict[str, int] = {}
        self._watch, self.degraded = open_watch()
        """Why the exact end of a command cannot be told, or None."""
        if self._watch.fileno() >= 0:
            readers.register(self._watch.fileno(), self.take_facts)

    def handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {
            launch.PutFilter: self._put_filter,
            launch.Spawn: self._spawn,
            launch.Annotate: self._annotate,
            launch.Proceed: self._proceed,
            launch.Abandon: self._abandon,
            launch.Signal: self._signal,
            launch.Kill: self._kill,
            launch.Forget: self._forget,
            launch.Release: self._release,
            launch.Keep: self._keep,
        }

    def runs_in(self, session: str) -> bool:
        """Whether a command of the session lives."""
        return any(p.living and p.request.session == session for p in self._processes.values())

    def group_of(self, session: str, process: str) -> str | None:
        """The cgroup of a command that runs in the session."""
        found = self._processes.get(process)
        return found.cgroup_path if found is not None and found.living and found.request.session == session else None

    def outlives_kill(self, session: str) -> bool:
        """Whether a command of the session was killed and lives still."""
        return any(p.living and p.killed and p.request.session == session for p in self._processes.values())

    def tell_adopted(self, request_id: int) -> None:
        """Tell a new supervisor of each."""
        for process in self._processes.values():
            self._supervisor.send(process.adopted(request_id), list(process.fds.values()))

    def drop_gated(self) -> None:
        """The supervisor has gone: who was not let in never will be."""
        for process in list(self._processes.values()):
            if process.gated:
                self._drop_gated(process)

    def end(self) -> None:
        """Kill them all and wait until they are gone, 5 s at most; let go of what they left."""
        for process in self._processes.values():
            process.kill()
        deadline = time.monotonic() + 5
        while any(p.living for p in self._processes.values()) and time.monotonic() < deadline:
            self.take_facts()
            time.sleep(0.002)
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    # -- facts --------------------------------------------------------------------------------------------------

    def next_poll_s(self) -> float | None:
        """In how many seconds facts are to be taken, whatever comes."""
        return self._watch.next_poll_s()

    def take_facts(self) -> None:
        """Connector, status pipes, then the dead: in that order."""
        touched = self._watch.poll()
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            touched |= self._watch.poll()
            self._standbys.forget(pid)
            self._on_reaped(pid)
            for process in self._processes.values():
                if process.living:
                    process.ask_status()
                    if process.learn_reaped(pid, status, usage):
                        touched.add(process)
        touched |= {process for process in self._processes.values() if process.living and process.learn_orphaned()}
        for process in touched:
            self._tell(process)

    def _tell(self, process: Process) -> None:
        if process.gone and process.living:  # its last words first: they may be read in this very round
            self._error_ready(process)
            self._exec_ready(process)
        for notice in process.notices():
            if not process.abandoned:
                self._supervisor.send(notice)
            if isinstance(notice, launch.StartError | launch.Exited):
                self._settle(process)

    def _settle(self, process: Process) -> None:
        """Tidy up after the last notice, which somebody waits for, was sent."""
        self._watch.discard(process)
        process.status.close()
        for fd in (process.error_fd, process.exec_fd):
            if fd is not None:
                self._readers.drop(fd)
        process.error_fd = process.exec_fd = None
        if process.payload_pidfd is not None:
            os.close(process.payload_pidfd)
            process.payload_pidfd = None
        process.leave_cgroup()
        self._standbys.want_after_end(process.request.session)
        if process.abandoned:
            del self._processes[process.request.process]
            process.close()

    # -- one process's pipes ------------------------------------------------------------------------------------

    def _error_ready(self, process: Process) -> None:
        if process.error_fd is None:
            return
        try:
            text = os.read(process.error_fd, 4096).decode(errors="replace")
        except BlockingIOError:
            return
        if text:
            stage, _, said = text.partition(" ")
            number, _, reason = said.partition(" ")
            code = int(number) if number.isdecimal() else 0
            words = f"the sandbox's {stage} step failed: {reason or os.strerror(code)}"
            if stage == "not_executable":
                words = f"{os.fsdecode(process.request.argv[0])}: cannot be executed: {os.strerror(code)}"
            process.setup_error = (stage if stage == "not_executable" else "sandbox_setup", code or None, words)
        self._readers.drop(process.error_fd)
        process.error_fd = None

    def _exec_ready(self, process: Process) -> None:
        """The shim's pipe: `+` once the terminal stands, then its end (a good exec) or `stage errno`."""
        if process.exec_fd is None:
            return
        try:
            data = os.read(process.exec_fd, 256)
        except BlockingIOError:
            return
        process.shim_said += data
        if data and len(process.shim_said) < 256:
            return
        self._readers.drop(process.exec_fd)
        process.exec_fd = None
        process.learn_shim()
        for touched in self._watch.poll() | {process}:
            self._tell(touched)

    # -- requests -----------------------------------------------------------------------------------------------

    def _put_filter(self, request: launch.PutFilter, _: list[int]) -> None:
        if sha256.hex_digest(request.bpf) != request.sha256 or len(request.bpf) % 8 or not request.bpf:
            self._supervisor.refuse(request.id, "filter", errno.EINVAL, "the program is not the one its hash names")
            return
        known = self._filters.pop(request.sha256, None)
        if known is None:
            known = os.memfd_create("seccomp", os.MFD_CLOEXEC)
            os.write(known, request.bpf)
        self._filters[request.sha256] = known
        if len(self._filters) > launch.FILTER_LIMIT:
            os.close(self._filters.pop(next(iter(self._filters))))
        self._supervisor.send(launch.Done(id=request.id))

    def _spawn(self, request: launch.Spawn, _: list[int]) -> None:
        session = self._sessions.get(request.session)
        problem = self._judge(request, session)
        if problem is not None or session is None:
            self._supervisor.refuse(request.id, "policy_denied", errno.EPERM, problem or "no such session")
            return
        base, admin = request.filters
        try:
            process = self._spawner.spawn(request, session, (self._filters[base], self._filters[admin]))
        except OSError as error:
            self._supervisor.refuse(
                request.id, "resources", error.errno, f"the sandbox could not be started: {error.strerror}"
            )
            return
        self._supervisor.send(process.spawned, list(process.fds.values()))
        self._processes[request.process] = process
        self._watch.add(process)
        # Not its status pipe: bubblewrap writes it in ten pieces while its init waits, and each would be a turn of ours first.
        for fd, ready in ((process.error_fd, self._error_ready), (process.exec_fd, self._exec_ready)):
            if fd is not None:
                self._readers.register(fd, partial(ready, process))
        self._standbys.want_after_start(session.name)

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
        if any(sha256 not in self._filters for sha256 in request.filters):
            return "a seccomp filter is missing: no filter, no spawn"
        if not request.argv or not request.argv[0]:
            return "the command is empty"
        if len(request.note) > launch.NOTE_LIMIT_BYTES:
            return "the note is too long"
        if request.rlimits.nofile < _NOFILE_MIN:
            return f"nofile is {request.rlimits.nofile}: with fewer than {_NOFILE_MIN} descriptors no sandbox can be built"
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

    def _proceed(self, request: launch.Proceed, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            process.proceed()
            self._supervisor.send(launch.Done(id=request.id))

    def _abandon(self, request: launch.Abandon, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        if process.gate_fd is None:
            self._supervisor.refuse(request.id, "gate", errno.EBUSY, "the command was let in already; kill it instead")
            return
        self._drop_gated(process)
        self._supervisor.send(launch.Done(id=request.id))

    def _drop_gated(self, process: Process) -> None:
        process.abandon()
        if not process.living:
            self._processes.pop(process.request.process, None)
            process.close()

    def _signal(self, request: launch.Signal, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        try:
            process.signal(request.signal)
        except OSError as error:
            self._supervisor.refuse(request.id, "signal", error.errno, str(error.strerror))
            return
        self._supervisor.send(launch.Done(id=request.id))

    def _kill(self, request: launch.Kill, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            process.kill()
            self._on_killed(process.request.session)
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
            fd = process.fds.pop(request.name, None)
            if fd is not None:
                os.close(fd)
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
