"""One command in its sandbox, from fork to the reaping of its init.

Three pids: `monitor_pid` (bubblewrap, our child), `init_pid` (bubblewrap's own pid 1 in the sandbox; reparented to us
when the monitor has gone) and `payload_pid` (the command). Facts arrive in any order from the status pipe, the process
connector and wait4; `notices` turns them into what the supervisor is told, each once, in the order
`Started | StartError`, `Exited`.

Rules
- The command ran if its exec was seen (connector) or bubblewrap reported an exit code. Else all of stderr is
  bubblewrap's, and the outcome is `StartError`.
- The exact wait status is the connector's; without it 129 to 192 is told as a signal, `inferred`.
- rusage is the init's: bubblewrap's monitor leaves before it reaps its init and would report none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from resource import struct_rusage

from coworkd.launcher.status import StatusReader
from coworkd.model.errors import START_STAGES
from coworkd.model.launch import Adopted, Exited, Spawn, Spawned, Started, StartError
from coworkd.model.process import Rusage
from coworkd.sandbox.failure import parse_failure
from coworkd.system import cgroup

_STDERR_LIMIT_BYTES = 64 * 1024
_INFERRED_SIGNALS = range(129, 193)


class Process:
    """A spawned command. Owns its descriptors until `close`."""

    def __init__(
        self,
        request: Spawn,
        *,
        monitor_pid: int,
        status: StatusReader,
        error_fd: int,
        gate_fd: int,
        exec_fd: int | None,
        diagnostics_fd: int,
        fds: dict[str, int],
        cgroup_path: str | None,
    ) -> None:
        self.request = request
        self.note = request.note
        self.monitor_pid = monitor_pid
        self.status = status
        self.error_fd: int | None = error_fd
        self.gate_fd: int | None = gate_fd
        self.abandoned = False
        self.exec_fd = exec_fd
        self.diagnostics_fd = diagnostics_fd
        self.fds = fds
        self.cgroup_path = cgroup_path
        self.spawned = Spawned(
            id=request.id, process=request.process, monitor_pid=monitor_pid, fds=tuple(fds), at=time.time()
        )
        self.payload_pid: int | None = None
        self.payload_status: int | None = None
        self.payload_pidfd: int | None = None
        self.init_pid: int | None = None
        self.killed = False
        self.setup_error: tuple[str, int | None, str] | None = None
        self.executed = False
        self.shim_said = b""
        self.started: Started | None = None
        self.start_error: StartError | None = None
        self.exited: Exited | None = None
        self._monitor_status: int | None = None
        self._rusage: Rusage | None = None

    # -- facts --------------------------------------------------------------------------------------------------

    def learn_init(self, pid: int) -> None:
        self.init_pid = self.init_pid or pid

    def ask_status(self) -> None:
        """Take what bubblewrap has told of its init by now, where that is not known yet."""
        if self.init_pid is None:
            self.status.read()
            if self.status.init_pid is not None:
                self.learn_init(self.status.init_pid)

    def learn_payload(self, pid: int) -> None:
        if self.payload_pid is None:
            self.payload_pid = pid
            with contextlib.suppress(
                OSError
            ):  # gone already, or no descriptor is left: it cannot be signalled then, only killed
                self.payload_pidfd = os.pidfd_open(pid)

    def learn_exec(self) -> None:
        self.executed = True

    def learn_shim(self) -> None:
        """The shim's pipe has ended: `+` and nothing more is a good exec, `+stage errno` a bad one."""
        stage, _, number = self.shim_said.removeprefix(b"+").decode(errors="replace").partition(" ")
        if stage:
            code = int(number) if number.isdecimal() else 0
            command = os.fsdecode(self.request.argv[0])
            self.setup_error = (
                stage if stage in START_STAGES else "sandbox_setup",
                code,
                f"{command}: {os.strerror(code)}",
            )
        elif self.shim_said == b"+":
            self.learn_exec()

    def learn_reaped(self, pid: int, status: int, usage: struct_rusage) -> bool:
        """A child was reaped; True if it was one of ours."""
        if pid == self.monitor_pid:
            self._monitor_status = status
        elif pid == self.init_pid:
            self._rusage = _to_rusage(usage)
        else:
            return False
        return True

    def learn_orphaned(self) -> bool:
        """Ask, once bubblewrap has gone, whether its init is ours to wait for; True if it turns out that it is not.

        A sandbox that fails while it is set up is reaped by bubblewrap itself, and then no rusage is to be had.
        """
        if self._monitor_status is None or self._rusage is not None or self.init_pid is None:
            return False
        try:
            os.waitid(os.P_PID, self.init_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._rusage = _NO_RUSAGE
            return True
        return False

    @property
    def living(self) -> bool:
        """Whether it has neither exited nor failed to start."""
        return self.exited is None and self.start_error is None

    # -- outcome ------------------------------------------------------------------------------------------------

    def notices(self) -> list[Started | StartError | Exited]:
        """What has become true since the last call."""
        told: list[Started | StartError | Exited] = []
        if self.started is None and self.executed and self.init_pid and self.payload_pid:
            self.started = Started(
                process=self.request.process, init_pid=self.init_pid, payload_pid=self.payload_pid, at=time.time()
            )
            told.append(self.started)
        if self.gone and self.living:
            told.append(self._conclude())
        return told

    @property
    def gone(self) -> bool:
        """Whether everything that can be reaped has been."""
        return self._monitor_status is not None and (self.init_pid is None or self._rusage is not None)

    def _conclude(self) -> StartError | Exited:
        self.status.drain()
        ran = self.setup_error is None and (self.executed or self.status.exit_code is not None)
        oom_kills = 0 if self.cgroup_path is None else cgroup.oom_kills(self.cgroup_path)
        if not ran and not self.killed and not os.WIFSIGNALED(self._monitor_status or 0):
            self.start_error = self._explain()
            return self.start_error
        code, number, inferred = self._exit()
        self.exited = Exited(
            process=self.request.process,
            code=code,
            signal=number,
            inferred=inferred,
            killed=self.killed,
            oom_kills=oom_kills,
            rusage=self._rusage or _NO_RUSAGE,
            at=time.time(),
        )
        return self.exited

    def _exit(self) -> tuple[int | None, int | None, bool]:
        if self.payload_status is not None:
            return (*_split(self.payload_status), False)
        code = self.status.exit_code
        if code is None:
            _, number = _split(self._monitor_status or 0)
            return None, number or signal.SIGKILL, True
        if code in _INFERRED_SIGNALS:
            return None, code - 128, True
        return code, None, False

    def _explain(self) -> StartError:
        stage, number, message = self.setup_error or parse_failure(self._diagnostics(), self.request.argv[0])
        return StartError(process=self.request.process, stage=stage, errno=number, message=message)

    def _diagnostics(self) -> bytes:
        # The pipe first: what the supervisor splices away in between is then in its spool.
        pending = b""
        with contextlib.suppress(BlockingIOError):
            pending = os.read(self.diagnostics_fd, _STDERR_LIMIT_BYTES)
        spool = self.fds.get("stderr_spool")
        kept = os.pread(spool, _STDERR_LIMIT_BYTES, 0) if spool is not None else b""
        return kept + pending

    # -- verbs --------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """kill(2) on the command's own process group; raises `ProcessLookupError` when the command has gone or not come yet."""
        if self.payload_pid is None or self.payload_pidfd is None:
            raise ProcessLookupError(3, "the command has not started")
        signal.pidfd_send_signal(self.payload_pidfd, 0)
        group = os.getpgid(self.payload_pid)
        if group not in (self.init_pid, self.payload_pid):
            raise ProcessLookupError(3, "the command has left its process group")
        os.killpg(group, number)

    @property
    def gated(self) -> bool:
        """Whether its sandbox waits for `proceed`."""
        return self.gate_fd is not None and self.living

    def proceed(self) -> None:
        """Let the command's exec happen, once; nothing to do for a sandbox that has gone."""
        if self.gate_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.gate_fd, b"g")
            os.close(self.gate_fd)
            self.gate_fd = None

    def abandon(self) -> None:
        """End a sandbox that may not become its command."""
        self.abandoned = True
        self.kill()

    def kill(self) -> None:
        """End the whole tree, frozen or stopped as it may be."""
        if self.gone:
            return
        self.killed = True
        with contextlib.suppress(OSError):  # no descriptor may be left: what follows needs none
            if self.cgroup_path is not None and cgroup.kill(self.cgroup_path):
                cgroup.freeze(self.cgroup_path, frozen=False)
        # Both are our own unreaped children, so neither number can be another's yet.
        for pid in (self.init_pid if self._rusage is None else None, self._living_monitor()):
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _living_monitor(self) -> int | None:
        return self.monitor_pid if self._monitor_status is None else None

    def adopted(self, request_id: int) -> Adopted:
        """Everything a new supervisor needs."""
        spawned = Spawned(
            id=request_id,
            process=self.request.process,
            monitor_pid=self.monitor_pid,
            fds=tuple(self.fds),
            at=self.spawned.at,
        )
        return Adopted(
            id=request_id,
            process=self.request.process,
            session=self.request.session,
            argv=self.request.argv,
            spawned=spawned,
            started=self.started,
            start_error=self.start_error,
            exited=self.exited,
            note=self.note,
        )

    def close(self) -> None:
        """Let go of every descriptor; for a process that has ended."""
        self.status.close()
        spare = [self.error_fd, self.gate_fd, self.exec_fd, self.payload_pidfd]
        if self.diagnostics_fd not in self.fds.values():
            spare.append(self.diagnostics_fd)
        for fd in [*self.fds.values(), *spare]:
            if fd is not None:
                os.close(fd)
        self.fds = {}
        self.error_fd = self.gate_fd = self.exec_fd = self.payload_pidfd = None

    def leave_cgroup(self) -> None:
        """Remove the cgroup of a sandbox that has gone."""
        if self.cgroup_path is not None:
            cgroup.remove(self.cgroup_path)


def _split(status: int) -> tuple[int | None, int | None]:
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None


_NO_RUSAGE = Rusage(
    user_s=0.0,
    system_s=0.0,
    max_rss_bytes=0,
    minor_faults=0,
    major_faults=0,
    voluntary_switches=0,
    involuntary_switches=0,
)


def _to_rusage(usage: struct_rusage) -> Rusage:
    return Rusage(
        user_s=usage.ru_utime,
        system_s=usage.ru_stime,
        max_rss_bytes=usage.ru_maxrss * 1024,
        minor_faults=usage.ru_minflt,
        major_faults=usage.ru_majflt,
        voluntary_switches=usage.ru_nvcsw,
        involuntary_switches=usage.ru_nivcsw,
    )
