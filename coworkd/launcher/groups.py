"""The cgroups of open sessions and their commands, while they are there: other limits, freezing, counts, pressure.

    s-NAME/            limits of the session
        commands/      frozen as one
            p-N/       limits of a command, killed as one
        helpers/       who serves its folders and files: never frozen

Rules
- A memory limit below what is used makes its writer take memory back, for seconds where there is nothing to take: a child writes it, the
  launcher goes on, and answers when the limit stands.
- A session is told of before it is frozen: whoever is about to be born in it is not frozen with what the forker has open.
- Files of pressure are kept for the sessions asked for last: where coworkd listens no more, the kernel is to look no longer.
- Nothing here is decided: what a limit may be is coworkd's to say.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from coworkd.launcher.errand import Errand, Report, Teller
from coworkd.launcher.readers import Readers
from coworkd.launcher.session import Session
from coworkd.launcher.supervisor import Supervisor
from coworkd.model import launch
from coworkd.model.limits import PRESSURE_KINDS, CgroupLimits, GroupUsage
from coworkd.system import cgroup, cgroup_limits

_WRITE_DEADLINE_S = 10.0
CHANGES_LIMIT = 32
"""How many changes of limits are under way at most."""
PRESSURE_LIMIT = 128
"""Of how many sessions the files of pressure are kept: as many as coworkd listens to."""


class _Change:
    """A change of limits that a child is writing."""

    def __init__(self, request: launch.SetLimits, path: str) -> None:
        self.request = request
        self.path = path
        self.errand = Errand(partial(_write, path, request.limits), name="coworkd-limits", deadline_s=_WRITE_DEADLINE_S)


class Groups:
    """Answers what is asked of them."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        *,
        readers: Readers,
        supervisor: Supervisor,
        root: str | None,
        session_group: Callable[[str], str | None],
        commands_group: Callable[[str], str | None],
        process_group: Callable[[str, str], str | None],
        turn: Callable[[Session, bool], None],
    ) -> None:
        """`root` holds all sessions; `process_group` is that of a command that runs in a session; `turn` is told of one that is about to
        be frozen (True), or to go on.
        """
        self._sessions = sessions
        self._readers = readers
        self._supervisor = supervisor
        self._root = root
        self._session_group = session_group
        self._commands_group = commands_group
        self._process_group = process_group
        self._turn = turn
        self._changes: dict[int, _Change] = {}
        self._pressed: dict[str, None] = {}
        """Those whose pressure was asked for, the last one last."""

    def handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {
            launch.SetLimits: self._set_limits,
            launch.Freeze: self._freeze,
            launch.Measure: self._measure,
            launch.OpenPressure: self._open_pressure,
        }

    def next_due(self) -> float | None:
        """When (monotonic) `end_late` has something to do."""
        if not self._changes:
            return None
        return min(change.errand.deadline for change in self._changes.values())

    def end_late(self, now: float) -> None:
        """The kernel has taken the limit before it began to take memory back: it stands, whoever waits for the rest."""
        for change in list(self._changes.values()):
            if now > change.errand.deadline:
                change.errand.kill()
                self._settle(change)

    def reaped(self, pid: int) -> None:
        """A child is gone, perhaps one of ours."""
        for change in self._changes.values():
            if change.errand.pid == pid:
                change.errand.reaped()

    def supervisor_gone(self) -> None:
        """Nobody waits for an answer any more; what is being written is written."""
        for change in list(self._changes.values()):
            self._drop(change)

    # -- requests -----------------------------------------------------------------------------------------------

    def _set_limits(self, request: launch.SetLimits, _: list[int]) -> None:
        path = self._find(request.id, request.session, request.process)
        if path is None:
            return
        if len(self._changes) >= CHANGES_LIMIT:
            self._supervisor.refuse(request.id, "busy", errno.EBUSY, f"{CHANGES_LIMIT} changes of limits are under way")
            return
        change = _Change(request, path)
        self._changes[change.errand.pid] = change
        self._readers.register(change.errand.fileno(), partial(self._written, change))

    def _written(self, change: _Change) -> None:
        report, _ = change.errand.take()
        if report.failed is None:
            self._settle(change)
            return
        self._drop(change)
        self._supervisor.refuse(change.request.id, "cgroup", report.errno, report.message)

    def _settle(self, change: _Change) -> None:
        self._drop(change)
        if os.path.isdir(change.path):
            self._tell_measured(change.request.id, change.path)
        else:  # the command has ended, perhaps of this very limit
            self._supervisor.send(
                launch.Measured(id=change.request.id, usage=GroupUsage(), limits=change.request.limits)
            )

    def _drop(self, change: _Change) -> None:
        self._readers.unregister(change.errand.fileno())
        change.errand.close()
        self._changes.pop(change.errand.pid, None)

    def _freeze(self, request: launch.Freeze, _: list[int]) -> None:
        if self._find(request.id, request.session, None) is None:
            return
        path = self._commands_group(request.session) or ""
        session = self._sessions[request.session]
        was = session.paused
        with self._refusing(request.id):
            self._turn(session, request.frozen)
            try:
                cgroup.freeze(path, request.frozen)
            except OSError:
                self._turn(session, was)
                raise
            self._supervisor.send(launch.Frozen(id=request.id, frozen=cgroup.is_frozen(path)))

    def _measure(self, request: launch.Measure, _: list[int]) -> None:
        path = self._root if request.session is None else self._find(request.id, request.session, request.process)
        if path is not None:
            self._tell_measured(request.id, path)
        elif request.session is None:
            self._supervisor.refuse(request.id, "cgroup", errno.EOPNOTSUPP, _NO_CGROUP)

    def _tell_measured(self, request_id: int, path: str) -> None:
        with self._refusing(request_id):
            self._supervisor.send(
                launch.Measured(
                    id=request_id, usage=cgroup_limits.measure(path), limits=cgroup_limits.read_limits(path)
                )
            )

    def _open_pressure(self, request: launch.OpenPressure, _: list[int]) -> None:
        path = self._find(request.id, request.session, None)
        if path is None:
            return
        held = self._sessions[request.session].pressure
        for kind in PRESSURE_KINDS:
            if kind not in held:
                with contextlib.suppress(OSError):  # a kernel without PSI, or with it switched off
                    held[kind] = os.open(f"{path}/{kind}.pressure", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._supervisor.send(launch.PressureOpened(id=request.id, kinds=tuple(held)), tuple(held.values()))
        self._pressed.pop(request.session, None)
        self._pressed[request.session] = None
        if len(self._pressed) > PRESSURE_LIMIT:
            oldest = next(iter(self._pressed))
            del self._pressed[oldest]
            if oldest in self._sessions:
                self._sessions[oldest].close_pressure()

    def _find(self, request_id: int, session: str, process: str | None) -> str | None:
        """The cgroup; None where that was refused."""
        if session not in self._sessions:
            self._supervisor.refuse(request_id, "session", errno.ESRCH, f"session {session!r} is not open")
            return None
        if self._root is None:
            self._supervisor.refuse(request_id, "cgroup", errno.EOPNOTSUPP, _NO_CGROUP)
            return None
        path = self._session_group(session) if process is None else self._process_group(session, process)
        if path is None:
            self._supervisor.refuse(request_id, "process", errno.ESRCH, f"no process {process!r} runs in it")
        return path

    @contextlib.contextmanager
    def _refusing(self, request_id: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._supervisor.refuse(request_id, "cgroup", error.errno, f"cgroup: {error.strerror}")


_NO_CGROUP = "this kernel has no cgroup v2 (it is mounted nowhere)"


def _write(path: str, limits: CgroupLimits, teller: Teller) -> None:
    try:
        cgroup_limits.limit(path, limits)
    except OSError as error:
        if error.errno != errno.ENODEV:  # it has ended meanwhile
            raise
    teller.tell(Report())
