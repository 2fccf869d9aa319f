"""The launcher's sessions: opened by builders, held, closed; and sockets made inside them.

Rules
- What is asked is checked again here: a uid below 1001, a name that is a path, another uid for an open session are refused.
- One that is open already is answered as it is, and what waits in it stays: a coworkd that comes up asks for all of them.
- A session is answered once it stands. A builder that does not answer in time (a hung share) is killed and the session refused.
- One that closes loses its workers and folders first, its folders in a child: to unmount can take its time.
- A builder whose supervisor goes is abandoned: whoever comes next asks anew, and counts its requests anew.
- A session that was not opened after all leaves no cgroup.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from coworkd.launcher.folders import Folders
from coworkd.launcher.listeners import Listeners, make_socket
from coworkd.launcher.pool import Pool
from coworkd.launcher.readers import Readers
from coworkd.launcher.session import BUILD_TIMEOUT_S, Builder, Session
from coworkd.launcher.spawn import COMMANDS, HELPERS, Spawner, is_name
from coworkd.launcher.supervisor import Supervisor
from coworkd.launcher.workers import Workers
from coworkd.model import launch
from coworkd.model.uids import MIN_UID
from coworkd.system import cgroup, cgroup_limits
from coworkd.system.namespaces import NetworkVisits

_END_S = 0.2
"""So long whoever closes a session waits for what was killed in its cgroup."""
_LOOK_AGAIN_S = 1.0


class Sessions:
    """Every open session, in `held`, and those that are being opened."""

    def __init__(
        self,
        held: dict[str, Session],
        *,
        base: bytes,
        readers: Readers,
        supervisor: Supervisor,
        spawner: Spawner,
        pool: Pool,
        folders: Folders,
        workers: Workers,
        runs_in: Callable[[str], bool],
    ) -> None:
        """`base` is a directory to build trees on; `runs_in` says whether a command of a session lives."""
        self._held = held
        self._base = base
        self._readers = readers
        self._supervisor = supervisor
        self._spawner = spawner
        self._pool = pool
        self._folders = folders
        self._workers = workers
        self._runs_in = runs_in
        self._visits = NetworkVisits()
        self._builders: dict[str, tuple[Builder, float]] = {}
        self._left: dict[str, float] = {}
        """Sessions that are gone but for their cgroup, in which something is still ending, and when (monotonic) that is looked at again."""
        self._era = 0
        """Grows with every supervisor that goes."""

    def handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {
            launch.OpenSession: self._open,
            launch.MakeSocket: self._make_socket,
            launch.CloseSession: self._close,
        }

    def next_due(self) -> float | None:
        """When (monotonic) `end_late` has something to do."""
        if not self._builders and not self._left:
            return None
        return min([*self._left.values(), *(deadline for _, deadline in self._builders.values())])

    def end_late(self) -> None:
        """Kill the builders that did not answer in time, and take cgroups away in which something had to end first."""
        for name in [name for name, due in self._left.items() if time.monotonic() >= due]:
            del self._left[name]
            self._remove_cgroup(name, wait_s=0.0)
        for name, (builder, deadline) in list(self._builders.items()):
            if time.monotonic() > deadline:
                del self._builders[name]
                self._abandon(builder)
                self._remove_cgroup(name)
                self._supervisor.refuse(builder.request.id, "tree", errno.ETIMEDOUT, "a folder did not answer in time")

    def abandon_builders(self) -> None:
        """The supervisor has gone: nothing is opened any more of what was asked for."""
        self._era += 1
        while self._builders:
            name, (builder, _) = self._builders.popitem()
            self._abandon(builder)
            self._remove_cgroup(name)

    def end(self) -> None:
        """Let go of everything, once no command lives."""
        self.abandon_builders()
        while self._held:
            self._held.popitem()[1].close()
        self._visits.close()

    def _abandon(self, builder: Builder) -> None:
        self._readers.unregister(builder.fileno())
        builder.abandon()

    # -- requests -----------------------------------------------------------------------------------------------

    def _open(self, request: launch.OpenSession, _: list[int]) -> None:
        if request.uid < MIN_UID or request.gid < MIN_UID:
            self._supervisor.refuse(request.id, "uid", errno.EPERM, "a session's uid is at least 1001")
            return
        if not is_name(request.session):
            self._supervisor.refuse(request.id, "name", errno.EINVAL, "that is no name of a session")
            return
        known = self._held.get(request.session)
        if known is not None and (known.uid, known.gid) != (request.uid, request.gid):
            self._supervisor.refuse(
                request.id, "uid", errno.EPERM, "the session is open with another uid; close it first"
            )
            return
        if known is not None:
            if known.paused != request.paused:
                self._pool.turn(known, paused=request.paused)
            self._pause(request)
            self._tell_opened(request.id, known)
            return
        if request.session in self._builders:
            self._supervisor.refuse(request.id, "tree", errno.EBUSY, "the session is being opened; ask again")
            return
        try:
            self._make_cgroup(request)
            builder = Builder(request, self._base, Listeners(self._visits, request))
        except OSError:
            self._remove_cgroup(request.session)
            raise
        self._builders[request.session] = (builder, time.monotonic() + BUILD_TIMEOUT_S)
        self._readers.register(builder.fileno(), lambda: self._built(request.session))

    def _make_cgroup(self, request: launch.OpenSession) -> None:
        path = self._spawner.session_cgroup(request.session)
        if path is not None:
            cgroup.create(path)
            cgroup_limits.limit(path, request.limits)
            cgroup.enable_controllers(path)
            commands = f"{path}/{COMMANDS}"
            cgroup.create(commands)
            cgroup.enable_controllers(commands)
            self._pause(request)

    def _remove_cgroup(self, name: str, *, wait_s: float = _END_S) -> None:
        """Of a session that is neither open nor being opened. Helpers of an earlier one of this name may still be ending in it."""
        path = self._spawner.session_cgroup(name)
        if path is None or name in self._builders or name in self._held:
            return
        if cgroup.remove(path, wait_s=wait_s):
            self._spawner.forget(name)
        else:
            self._left[name] = time.monotonic() + _LOOK_AGAIN_S

    def _pause(self, request: launch.OpenSession) -> None:
        """Whatever an earlier supervisor has left: the commands do what the record says."""
        path = self._spawner.commands_cgroup(request.session)
        if path is not None:
            with contextlib.suppress(FileNotFoundError):  # this kernel freezes nothing
                cgroup.freeze(path, request.paused)

    def _short_of_memory(self, request: launch.OpenSession) -> tuple[str, ...]:
        """A sentence where all sessions together may have less than this one is promised."""
        path, wanted = self._spawner.session_cgroup(request.session), request.limits.memory_max_bytes
        allowed = None if path is None else cgroup.number(os.path.dirname(path), "memory.max")
        if wanted is None or allowed is None or wanted <= allowed:
            return ()
        mib = 1 << 20
        return (
            f"limits.memory_max: {wanted // mib}M, but this guest has {allowed // mib}M for all its sessions together",
        )

    def _built(self, name: str) -> None:
        builder, _ = self._builders.pop(name)
        self._readers.unregister(builder.fileno())
        session, report = builder.finish()
        if session is None:
            self._remove_cgroup(name)
            self._supervisor.refuse(builder.request.id, report.error_stage or "", report.errno, report.message)
            return
        session.degraded += self._short_of_memory(builder.request)
        self._held[name] = session
        self._tell_opened(builder.request.id, session)
        self._pool.want_now(name)

    def _tell_opened(self, request_id: int, session: Session) -> None:
        folders = self._folders.names(session.name)
        self._supervisor.send(
            launch.Opened(id=request_id, missing=session.missing, degraded=session.degraded, folders=folders),
            session.listeners,
        )

    def _make_socket(self, request: launch.MakeSocket, _: list[int]) -> None:
        session = self._held.get(request.session)
        if session is None:
            self._supervisor.refuse(request.id, "session", errno.ESRCH, f"session {request.session!r} is not open")
            return
        with make_socket(self._visits, session.network_namespace, ipv6=request.ipv6) as made:
            self._supervisor.send(launch.SocketMade(id=request.id), (made.fileno(),))

    def _close(self, request: launch.CloseSession, _: list[int]) -> None:
        if self._runs_in(request.session):
            self._supervisor.refuse(request.id, "busy", errno.EBUSY, "commands of the session still run")
            return
        session = self._held.get(request.session)
        if session is None:
            self._let_go(request, self._era, None)
            return
        self._pool.discard(session)
        del self._held[request.session]
        self._workers.drop_session(request.session)
        try:
            self._folders.close_session(session, partial(self._let_go, request, self._era, session))
        except OSError:
            self._held[request.session] = session
            raise

    def _let_go(self, request: launch.CloseSession, era: int, session: Session | None) -> None:
        """Its folders are away, and nothing can be started in it any more."""
        if session is not None:
            session.close()
        path = self._spawner.session_cgroup(request.session)
        if path is not None and request.session not in self._held:
            cgroup.kill(f"{path}/{HELPERS}")
        self._remove_cgroup(request.session)
        if era == self._era:  # else who asked has gone, and another counts its requests anew
            self._supervisor.send(launch.Done(id=request.id))
