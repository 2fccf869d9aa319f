"""The launcher's loop: one selector, one supervisor, every session and process.

A supervisor that goes leaves everything running; if none comes back within `linger_s` (None: for ever) all is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from coworkd.launcher.filters import Filters
from coworkd.launcher.folder_doubts import Doubts
from coworkd.launcher.folders import Folders
from coworkd.launcher.forker import Forker
from coworkd.launcher.groups import Groups
from coworkd.launcher.pool import Pool
from coworkd.launcher.pressure import Pressure
from coworkd.launcher.processes import Processes
from coworkd.launcher.readers import Readers
from coworkd.launcher.reaper import Reaper
from coworkd.launcher.session import Session
from coworkd.launcher.sessions import Sessions
from coworkd.launcher.spawn import Spawner
from coworkd.launcher.supervisor import Supervisor
from coworkd.launcher.workers import Workers
from coworkd.model import launch
from coworkd.system import cgroup


class Quitting(Exception):
    """The loop is to end."""


class Launcher:
    """Everything the launcher holds. `run` serves until `Quit`, TERM, or the linger time has passed."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        bubblewrap: str,
        base: str,
        cgroup_root: str | None,
        linger_s: float | None,
        forker: Forker,
    ) -> None:
        self._cgroup_root = cgroup_root
        self._linger_s = linger_s
        self._supervisors = 0
        missing = cgroup.missing_controllers(cgroup_root) if cgroup_root else ("memory", "pids", "cpu")
        filters = Filters()
        spawner = Spawner(os.fsencode(bubblewrap), cgroup_root, missing, filters, forker)
        self._held: dict[str, Session] = {}
        held = self._held
        self._readers = Readers()
        self._supervisor = Supervisor(listener, self._readers, handle=self._handle, on_gone=self._alone)
        self._reaper = Reaper(self._readers, on_reaped=self._reaped)
        self._pool = Pool(
            held,
            readers=self._readers,
            spawner=spawner,
            reaper=self._reaper,
            pressure=Pressure(self._readers),
        )
        self._folders = Folders(
            held,
            base=os.fsencode(base),
            readers=self._readers,
            supervisor=self._supervisor,
            own_cgroup=spawner.helpers_cgroup,
            on_changed=self._pool.tree_changed,
        )
        self._workers = Workers(
            held, readers=self._readers, supervisor=self._supervisor, own_cgroup=spawner.helpers_cgroup
        )
        self._processes = Processes(
            held,
            readers=self._readers,
            supervisor=self._supervisor,
            reaper=self._reaper,
            spawner=spawner,
            filters=filters,
            pool=self._pool,
            on_killed=lambda session: self._doubts.killed(session),
        )
        self._doubts = Doubts(self._folders, readers=self._readers, lives=self._processes.outlives_kill)
        self._sessions = self._make_sessions(spawner, base)
        self._groups = self._make_groups(spawner)
        self._degraded = _compose_degraded(missing, self._reaper.degraded)
        self._handlers = self._collect_handlers()
        self._timed = (
            self._reaper, self._pool, self._processes, self._sessions, self._folders, self._doubts, self._workers, self._groups
        )  # fmt: skip

    def _make_sessions(self, spawner: Spawner, base: str) -> Sessions:
        return Sessions(
            self._held,
            base=os.fsencode(base),
            readers=self._readers,
            supervisor=self._supervisor,
            spawner=spawner,
            pool=self._pool,
            folders=self._folders,
            workers=self._workers,
            runs_in=self._processes.runs_in,
        )

    def _make_groups(self, spawner: Spawner) -> Groups:
        return Groups(
            self._held,
            readers=self._readers,
            supervisor=self._supervisor,
            root=self._cgroup_root,
            session_group=spawner.session_cgroup,
            commands_group=spawner.commands_cgroup,
            process_group=self._processes.group_of,
            turn=lambda session, paused: self._pool.turn(session, paused=paused),
        )

    def _collect_handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {
            **self._sessions.handlers(),
            **self._processes.handlers(),
            **self._folders.handlers(),
            **self._workers.handlers(),
            **self._groups.handlers(),
            launch.Adopt: self._adopt,
            launch.Ping: self._ping,
            launch.CountWarm: self._count_warm,
            launch.Quit: self._quit,
        }

    def run(self, wakeup_fd: int) -> None:
        """Serve. `wakeup_fd` becomes readable when a signal has come."""
        self._supervisor.listen()
        self._readers.register(wakeup_fd, lambda: self._take_signals(wakeup_fd))
        try:
            while True:
                due = self._next_due()
                self._readers.call_ready(None if due is None else max(0.0, due - time.monotonic()))
                if due is not None and time.monotonic() >= due:
                    self._take_time()
                self._supervisor.settle()
                self._reaper.rest()
        except Quitting:
            return
        finally:
            self._end_everything()
            self._readers.close()

    def _handle(self, request: launch.Request, fds: list[int]) -> None:
        self._handlers[type(request)](request, fds)

    def _alone(self) -> None:
        self._processes.drop_gated()
        self._sessions.abandon_builders()
        self._folders.forget_waiters()
        self._workers.supervisor_gone()
        self._groups.supervisor_gone()

    def _reaped(self, pid: int) -> None:
        self._pool.reaped(pid)
        self._folders.reaped(pid)
        self._doubts.reaped(pid)
        self._workers.reaped(pid)
        self._groups.reaped(pid)

    # -- time and signals ---------------------------------------------------------------------------------------

    def _next_due(self) -> float | None:
        """When (monotonic) somebody has something to do, whatever comes. Asked in every turn: who has nothing says so at once."""
        due = [each.next_due() for each in self._timed]
        due.append(self._lonely_at())
        return min([moment for moment in due if moment is not None], default=None)

    def _lonely_at(self) -> float | None:
        """When nobody has come back for too long."""
        since = self._supervisor.alone_since
        return None if since is None or self._linger_s is None else since + self._linger_s

    def _take_time(self) -> None:
        self._reaper.take_due()
        self._sessions.end_late()
        self._folders.end_late()
        self._doubts.end_late()
        self._workers.end_late()
        self._groups.end_late(time.monotonic())
        self._processes.end_quiet(time.monotonic())
        self._pool.make_due()
        lonely_at = self._lonely_at()
        if lonely_at is not None and time.monotonic() > lonely_at:
            raise Quitting

    def _take_signals(self, wakeup_fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in os.read(wakeup_fd, 4096):
                raise Quitting
        self._reaper.take_facts()

    # -- requests -----------------------------------------------------------------------------------------------

    def _adopt(self, request: launch.Adopt, _: list[int]) -> None:
        self._workers.supervisor_came()
        self._processes.tell_adopted(request.id)
        self._supervisor.send(
            launch.TakenOver(
                id=request.id,
                supervisors_before=self._supervisors,
                sessions=tuple(self._held),
                degraded=self._degraded,
            )
        )
        self._supervisors += 1

    def _ping(self, request: launch.Ping, _: list[int]) -> None:
        self._supervisor.send(launch.Done(id=request.id, degraded=self._degraded))

    def _count_warm(self, request: launch.CountWarm, _: list[int]) -> None:
        self._supervisor.send(self._pool.counts(request.id))

    def _quit(self, request: launch.Quit, _: list[int]) -> None:
        self._end_everything()
        self._supervisor.send(launch.Done(id=request.id))
        raise Quitting

    # -- ends ---------------------------------------------------------------------------------------------------

    def _end_everything(self) -> None:
        self._sessions.abandon_builders()
        self._processes.end()
        self._pool.end()
        self._folders.end()
        self._sessions.end()
        self._workers.end()
        if self._cgroup_root is not None and not cgroup.remove(self._cgroup_root, wait_s=1.0):
            print(f"coworkd-launcher: {self._cgroup_root} could not be removed", file=sys.stderr)


def _compose_degraded(missing: tuple[str, ...], watch: str | None) -> tuple[str, ...]:
    """What the kernel does not allow: controllers of cgroup v2 that are `missing`, and what the `watch` over processes lacks."""
    lacking = f"cgroup v2 lacks {', '.join(missing)}: those limits do not hold" if missing else None
    return tuple(reason for reason in (lacking, watch) if reason)
