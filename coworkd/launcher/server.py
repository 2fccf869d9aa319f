"""The launcher's loop: one selector, one supervisor, every session and process.

Rules
- One supervisor at a time: a second is answered by end of file while the first lives. Only root may connect.
- A supervisor that goes leaves everything running; if none comes back within `linger_s` (None: for ever) all is ended.
- One reaper: `wait4(-1)` here and nowhere else. Facts of the connector and the status pipes are taken before each reaping, so that a
  reaped pid is always known by then.
- What is asked is checked again here: uid, filters, names. Nothing is decided.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from coworkd.launcher.exec_watch import open_watch
from coworkd.launcher.link import SupervisorLink, peer_uid
from coworkd.launcher.process import Process
from coworkd.launcher.session import BUILD_TIMEOUT_S, Builder, Session
from coworkd.launcher.spawn import Spawner
from coworkd.model import launch
from coworkd.model.names import MIN_UID
from coworkd.system import cgroup, sha256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PROCESS_LIMIT = 4096
_STANDBY_LIMIT = 8
_STANDBY_DELAY_S = 0.03
"""A new standby is made this long after a command began: not while it starts."""
_STANDBY_REST_S = 0.002
"""Or this long after it ended: not while its answer is on its way."""
_NOFILE_MIN = 64


def is_name(text: str) -> bool:
    """Whether `text` can stand in the path of a cgroup: a session's or a process's name, and never a way out of it."""
    return _NAME.match(text) is not None


class Quitting(Exception):
    """The loop is to end."""


class Launcher:
    """Everything the launcher holds. `run` serves until `Quit`, TERM, or the linger time has passed."""

    def __init__(
        self, listener: socket.socket, *, bubblewrap: str, base: str, cgroup_root: str | None, linger_s: float | None
    ) -> None:
        self._listener = listener
        self._base = os.fsencode(base)
        self._cgroup_root = cgroup_root
        self._linger_s = linger_s
        self._alone_since = time.monotonic()
        self._supervisor: SupervisorLink | None = None
        self._sessions: dict[str, Session] = {}
        self._builders: dict[str, tuple[Builder, float]] = {}
        self._processes: dict[str, Process] = {}
        self._filters: dict[str, int] = {}
        self._degraded: list[str] = []
        missing = cgroup.missing_controllers(cgroup_root) if cgroup_root else ("memory", "pids", "cpu")
        if missing:
            self._degraded.append(f"cgroup v2 lacks {', '.join(missing)}: those limits do not hold")
        self._spawner = Spawner(os.fsencode(bubblewrap), cgroup_root, missing)
        self._standing: dict[str, None] = {}
        self._wanting: dict[str, float] = {}
        self._watch, reason = open_watch()
        if reason:
            self._degraded.append(reason)
        self._selector = selectors.EpollSelector()
        self._handlers: dict[type, Callable[[Any, list[int]], None]] = {
            launch.OpenSession: self._open_session,
            launch.CloseSession: self._close_session,
            launch.PutFilter: self._put_filter,
            launch.Spawn: self._spawn,
            launch.Proceed: self._proceed,
            launch.Abandon: self._abandon,
            launch.Signal: self._signal,
            launch.Kill: self._kill,
            launch.Forget: self._forget,
            launch.Release: self._release,
            launch.Keep: self._keep,
            launch.Adopt: self._adopt,
            launch.Ping: self._ping,
            launch.Quit: self._quit,
        }

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, wakeup_fd: int) -> None:
        """Serve. `wakeup_fd` becomes readable when a signal has come."""
        self._register(self._listener.fileno(), self._accept)
        self._register(wakeup_fd, lambda: self._take_signals(wakeup_fd))
        if self._watch.fileno() >= 0:
            self._register(self._watch.fileno(), self._take_facts)
        try:
            while True:
                for key, mask in self._selector.select(self._timeout_s()):
                    if self._selector.get_map().get(key.fd) is not key:
                        continue  # closed by what came before it in this round
                    if mask & selectors.EVENT_WRITE and self._supervisor is not None:
                        self._supervisor.flush()
                    if mask & selectors.EVENT_READ:
                        key.data()
                self._take_time()
                self._set_interest()
        except Quitting:
            return
        finally:
            self._end_everything()

    def _timeout_s(self) -> float | None:
        waits = [self._watch.next_poll_s()]
        waits += [due - time.monotonic() for due in self._wanting.values()]
        waits += [deadline - time.monotonic() for _, deadline in self._builders.values()]
        if self._supervisor is None and self._linger_s is not None:
            waits.append(self._alone_since + self._linger_s - time.monotonic())
        known = [max(0.0, wait) for wait in waits if wait is not None]
        return min(known, default=None)

    def _take_time(self) -> None:
        if self._watch.next_poll_s() == 0:
            self._take_facts()
        for name, (builder, deadline) in list(self._builders.items()):
            if time.monotonic() > deadline:
                self._unregister(builder.fileno())
                del self._builders[name]
                builder.abandon()
                self._refuse(builder.request.id, "tree", errno.ETIMEDOUT, "a folder did not answer in time")
        for name, due in list(self._wanting.items()):
            if time.monotonic() >= due:
                del self._wanting[name]
                if name in self._sessions:
                    self._stand_by(self._sessions[name])
        alone = self._supervisor is None and self._linger_s is not None
        if alone and time.monotonic() - self._alone_since > (self._linger_s or 0.0):
            raise Quitting

    def _take_signals(self, wakeup_fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in os.read(wakeup_fd, 4096):
                raise Quitting
        self._take_facts()

    def _take_facts(self) -> None:
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
            self._forget_standby(pid)
            for process in self._processes.values():
                if process.living:
                    self._learn_init(process)
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
                self._send(notice)
            if isinstance(notice, launch.StartError | launch.Exited):
                self._settle(process)

    def _settle(self, process: Process) -> None:
        """Tidy up after the last notice, which somebody waits for, was sent."""
        self._watch.discard(process)
        self._drop_status(process)
        for fd in (process.error_fd, process.exec_fd):
            if fd is not None:
                self._drop(fd)
        process.error_fd = process.exec_fd = None
        if process.payload_pidfd is not None:
            os.close(process.payload_pidfd)
            process.payload_pidfd = None
        process.leave_cgroup()
        self._wanting[process.request.session] = time.monotonic() + _STANDBY_REST_S
        if process.abandoned:
            del self._processes[process.request.process]
            process.close()

    # -- one process's pipes ------------------------------------------------------------------------------------

    def _status_ready(self, process: Process) -> None:
        process.status.read()
        self._learn_init(process)
        if process.status.ended:
            self._drop_status(process)

    def _learn_init(self, process: Process) -> None:
        if process.init_pid is None:
            process.status.read()
            if process.status.init_pid is not None:
                process.learn_init(process.status.init_pid)

    def _drop_status(self, process: Process) -> None:
        if process.status.fd is not None:
            self._unregister(process.status.fd)
            process.status.close()

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
        self._drop(process.error_fd)
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
        self._drop(process.exec_fd)
        process.exec_fd = None
        process.learn_shim()
        for touched in self._watch.poll() | {process}:
            self._tell(touched)

    def _drop(self, fd: int) -> None:
        self._unregister(fd)
        os.close(fd)

    # -- the supervisor -----------------------------------------------------------------------------------------

    def _accept(self) -> None:
        # The one before may have hung up in the same moment: a supervisor that was killed and started again.
        self._receive()
        self._set_interest()
        connection, _ = self._listener.accept()
        if peer_uid(connection) != 0 or self._supervisor is not None:
            connection.close()
            return
        self._supervisor = SupervisorLink(connection)
        self._register(connection.fileno(), self._receive)

    def _receive(self) -> None:
        while self._supervisor is not None and not self._supervisor.closed:
            received = self._supervisor.receive()
            if received is None:
                break
            request, fds = received
            try:
                self._handlers[type(request)](request, fds)
            except OSError as error:  # one session's lack of a descriptor or a bad limit must not end all others
                self._refuse(request.id, "resources", error.errno, f"{type(request).__name__}: {error.strerror}")
            finally:
                for fd in fds:
                    os.close(fd)

    def _set_interest(self) -> None:
        link = self._supervisor
        if link is None:
            return
        if link.closed:
            self._unregister(link.fileno())
            link.close()
            for process in list(self._processes.values()):
                if process.gated:
                    self._drop_gated(process)
            self._abandon_builders()  # whoever comes next asks anew, and counts its requests anew
            self._supervisor = None
            self._alone_since = time.monotonic()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.behind else 0)
        if self._selector.get_key(link.fileno()).events != wanted:
            self._selector.modify(link.fileno(), wanted, self._receive)

    def _send(self, reply: launch.Reply, fds: list[int] | None = None) -> None:
        if self._supervisor is not None:
            self._supervisor.send(reply, fds or ())

    def _refuse(self, request_id: int, stage: str, number: int | None, message: str) -> None:
        self._send(launch.Refused(id=request_id, stage=stage, errno=number, message=message))

    # -- requests -----------------------------------------------------------------------------------------------

    def _ping(self, request: launch.Ping, _: list[int]) -> None:
        self._send(launch.Done(id=request.id, degraded=tuple(self._degraded)))

    def _quit(self, request: launch.Quit, _: list[int]) -> None:
        self._end_everything()
        self._send(launch.Done(id=request.id))
        raise Quitting

    def _adopt(self, request: launch.Adopt, _: list[int]) -> None:
        for process in self._processes.values():
            self._send(process.adopted(request.id), list(process.fds.values()))
        self._send(launch.Done(id=request.id, degraded=tuple(self._degraded)))

    def _open_session(self, request: launch.OpenSession, _: list[int]) -> None:
        if request.uid < MIN_UID or request.gid < MIN_UID:
            self._refuse(request.id, "uid", errno.EPERM, "a session's uid is at least 1001")
            return
        if not is_name(request.session):
            self._refuse(request.id, "name", errno.EINVAL, "that is no name of a session")
            return
        known = self._sessions.get(request.session)
        if known is not None and (known.uid, known.gid) != (request.uid, request.gid):
            self._refuse(request.id, "uid", errno.EPERM, "the session is open with another uid; close it first")
            return
        if known is not None:
            self._send(launch.Done(id=request.id, missing=known.missing, degraded=known.degraded))
            return
        if request.session in self._builders:
            self._refuse(request.id, "tree", errno.EBUSY, "the session is being opened; ask again")
            return
        path = self._spawner.session_cgroup(request.session)
        if path is not None:
            cgroup.create(path)
            cgroup.limit(
                path, memory_max_bytes=request.memory_max_bytes, pids_max=request.pids_max, cpu_max=request.cpu_max
            )
            cgroup.enable_controllers(path)
        builder = Builder(request, self._base)
        self._builders[request.session] = (builder, time.monotonic() + BUILD_TIMEOUT_S)
        self._register(builder.fileno(), lambda: self._builder_ready(request.session))

    def _builder_ready(self, name: str) -> None:
        builder, _ = self._builders.pop(name)
        self._unregister(builder.fileno())
        session, report = builder.finish()
        if session is None:
            self._refuse(builder.request.id, report.error_stage or "", report.errno, report.message)
            return
        self._sessions[name] = session
        self._send(launch.Done(id=builder.request.id, missing=session.missing, degraded=session.degraded))
        self._wanting[name] = 0.0

    def _close_session(self, request: launch.CloseSession, _: list[int]) -> None:
        if any(p.living and p.request.session == request.session for p in self._processes.values()):
            self._refuse(request.id, "busy", errno.EBUSY, "commands of the session still run")
            return
        session = self._sessions.pop(request.session, None)
        self._standing.pop(request.session, None)
        if session is not None:
            session.close()
        path = self._spawner.session_cgroup(request.session)
        if path is not None:
            cgroup.remove(path, wait_s=0.2)
        self._send(launch.Done(id=request.id))

    def _put_filter(self, request: launch.PutFilter, _: list[int]) -> None:
        if sha256.hex_digest(request.bpf) != request.sha256 or len(request.bpf) % 8 or not request.bpf:
            self._refuse(request.id, "filter", errno.EINVAL, "the program is not the one its hash names")
            return
        known = self._filters.pop(request.sha256, None)
        if known is None:
            known = os.memfd_create("seccomp", os.MFD_CLOEXEC)
            os.write(known, request.bpf)
        self._filters[request.sha256] = known
        if len(self._filters) > launch.FILTER_LIMIT:
            os.close(self._filters.pop(next(iter(self._filters))))
        self._send(launch.Done(id=request.id))

    def _spawn(self, request: launch.Spawn, _: list[int]) -> None:
        session = self._sessions.get(request.session)
        problem = self._judge(request, session)
        if problem is not None or session is None:
            self._refuse(request.id, "policy_denied", errno.EPERM, problem or "no such session")
            return
        base, admin = request.filters
        try:
            process = self._spawner.spawn(request, session, (self._filters[base], self._filters[admin]))
        except OSError as error:
            self._refuse(request.id, "resources", error.errno, f"the sandbox could not be started: {error.strerror}")
            return
        self._send(process.spawned, list(process.fds.values()))
        self._processes[request.process] = process
        self._watch.add(process)
        for fd, ready in (
            (process.status.fd, self._status_ready),
            (process.error_fd, self._error_ready),
            (process.exec_fd, self._exec_ready),
        ):
            if fd is not None:
                self._register(fd, partial(ready, process))
        self._wanting[session.name] = time.monotonic() + _STANDBY_DELAY_S

    def _stand_by(self, session: Session) -> None:
        """Have a child wait in the session, and in no more than the `_STANDBY_LIMIT` sessions that were used last."""
        if session.standby is None:
            try:
                session.standby = self._spawner.make_standby(session)
                self._spawner.make_ready()
            except OSError:  # the next command then makes its own, and tells why if it cannot
                return
        self._standing.pop(session.name, None)
        self._standing[session.name] = None
        while len(self._standing) > _STANDBY_LIMIT:
            oldest = next(iter(self._standing))
            del self._standing[oldest]
            standby = self._sessions[oldest].take_standby() if oldest in self._sessions else None
            if standby is not None:
                standby.dismiss()

    def _forget_standby(self, pid: int) -> None:
        """A child that ended while it waited (someone killed it): the next command makes its own."""
        for name in self._standing:
            session = self._sessions.get(name)
            if session is not None and session.standby is not None and session.standby.pid == pid:
                session.standby.dismiss()
                session.standby = None

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
        if request.nofile < _NOFILE_MIN:
            return f"nofile is {request.nofile}: with fewer than {_NOFILE_MIN} descriptors no sandbox can be built"
        return None

    def _proceed(self, request: launch.Proceed, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            process.proceed()
            self._send(launch.Done(id=request.id))

    def _abandon(self, request: launch.Abandon, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        if process.gate_fd is None:
            self._refuse(request.id, "gate", errno.EBUSY, "the command was let in already; kill it instead")
            return
        self._drop_gated(process)
        self._send(launch.Done(id=request.id))

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
            self._refuse(request.id, "signal", error.errno, str(error.strerror))
            return
        self._send(launch.Done(id=request.id))

    def _kill(self, request: launch.Kill, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            process.kill()
            self._send(launch.Done(id=request.id))

    def _forget(self, request: launch.Forget, _: list[int]) -> None:
        process = self._processes.get(request.process)
        if process is not None and process.living:
            self._refuse(request.id, "busy", errno.EBUSY, "the command still runs")
            return
        if process is not None:
            del self._processes[request.process]
            process.close()
        self._send(launch.Done(id=request.id))

    def _release(self, request: launch.Release, _: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is not None:
            fd = process.fds.pop(request.name, None)
            if fd is not None:
                os.close(fd)
            self._send(launch.Done(id=request.id))

    def _keep(self, request: launch.Keep, fds: list[int]) -> None:
        process = self._find(request.id, request.process)
        if process is None:
            return
        if len(fds) != 1 or request.name in process.fds:
            self._refuse(request.id, "keep", errno.EINVAL, "exactly one new descriptor can be kept under a name")
            return
        process.fds[request.name] = fds.pop()
        self._send(launch.Done(id=request.id))

    def _find(self, request_id: int, name: str) -> Process | None:
        process = self._processes.get(name)
        if process is None:
            self._refuse(request_id, "process", errno.ESRCH, f"no process {name!r}")
        return process

    # -- ends ---------------------------------------------------------------------------------------------------

    def _end_everything(self) -> None:
        self._abandon_builders()
        for process in self._processes.values():
            process.kill()
        deadline = time.monotonic() + 5
        while any(p.living for p in self._processes.values()) and time.monotonic() < deadline:
            self._take_facts()
            time.sleep(0.002)
        for process in self._processes.values():
            process.close()
        self._processes.clear()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        if self._cgroup_root is not None and not cgroup.remove(self._cgroup_root, wait_s=1.0):
            print(f"coworkd-launcher: {self._cgroup_root} could not be removed", file=sys.stderr)

    def _abandon_builders(self) -> None:
        for builder, _ in self._builders.values():
            self._unregister(builder.fileno())
            builder.abandon()
        self._builders.clear()

    # -- selector -----------------------------------------------------------------------------------------------

    def _register(self, fd: int, call: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, call)

    def _unregister(self, fd: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)
