"""The launcher's workers: started for the supervisor, which talks to them itself; ended with it.

Rules
- The launcher keeps no end of a worker's socket: when the supervisor's is closed, the worker reads its end and goes. One that does
  not, `_ALONE_S` after the supervisor has gone, is killed; at once when the next one comes, so that no two do the same work. A `disk`
  worker has its whole time: what it runs may be in the middle of a repair, and a disk is opened by one at a time (O_EXCL).
- A worker inside a session ends with the session.
- At most `WORKER_LIMIT`, those included that were killed and hang in the kernel still.
- `OwnMount`: what a worker has mounted for the whole machine is taken away when the launcher ends.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from coworkd.launcher.errand import Errand
from coworkd.launcher.readers import Readers
from coworkd.launcher.session import Session
from coworkd.launcher.supervisor import Supervisor
from coworkd.launcher.worker import Inside, Worker
from coworkd.model import launch
from coworkd.system import mounts

WORKER_LIMIT = 64
MOUNT_LIMIT = 16
_START_DEADLINE_S = 10.0
_ALONE_S = 30.0


class HeldWorker:
    """A worker that is starting (`request` is set) or at work."""

    def __init__(self, number: int, request: launch.StartWorker, errand: Errand, socket_end: socket.socket) -> None:
        self.number = number
        self.kind = request.kind
        self.session = request.session
        self.request: launch.StartWorker | None = request
        self.errand = errand
        self.socket_end = socket_end
        self.due: float | None = errand.deadline
        """When (monotonic) it is killed."""


class Workers:
    """Every worker, by number, until it is reaped."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        *,
        readers: Readers,
        supervisor: Supervisor,
        own_cgroup: Callable[[str], str | None],
    ) -> None:
        """`own_cgroup` makes the one for what works inside a session."""
        self._sessions = sessions
        self._readers = readers
        self._supervisor = supervisor
        self._own_cgroup = own_cgroup
        self._workers: dict[int, HeldWorker] = {}
        self._last_number = 0
        self._mounts: dict[bytes, None] = {}

    def handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {launch.StartWorker: self._start, launch.KillWorker: self._kill, launch.OwnMount: self._own_mount}

    def next_due(self) -> float | None:
        """When (monotonic) `end_late` has something to do."""
        due = [worker.due for worker in self._workers.values() if worker.due is not None]
        return min(due) if due else None

    def end_late(self) -> None:
        """Kill those whose time has come."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.due is not None and now > worker.due:
                self._end(worker)
                self._refuse(worker, errno.ETIMEDOUT, "the worker did not start in time")

    def reaped(self, pid: int) -> None:
        """A child is gone, perhaps a worker."""
        for worker in list(self._workers.values()):
            if worker.errand.pid == pid:
                worker.errand.reaped()
                if worker.request is None:  # else its last words are still to be read
                    del self._workers[worker.number]

    def supervisor_gone(self) -> None:
        """Its ends of the sockets are closed: the workers have some time to see that."""
        for worker in list(self._workers.values()):
            if worker.request is not None:
                worker.request = None
                self._settle_start(worker)
                self._end(worker)
            elif worker.due is None:
                worker.due = time.monotonic() + _ALONE_S

    def supervisor_came(self) -> None:
        """Who still works for the one before ends now."""
        for worker in self._workers.values():
            if worker.due is not None and worker.kind != "disk":
                self._end(worker)

    def drop_session(self, session: str) -> None:
        """The session closes, and who works inside it goes."""
        for worker in list(self._workers.values()):
            if worker.session == session:
                self._end(worker)
                self._refuse(worker, errno.ESRCH, "the session was closed meanwhile")

    def end(self) -> None:
        """Everything goes, with what was mounted for the machine, the last one first."""
        for worker in list(self._workers.values()):
            self._end(worker)
        while self._mounts:
            path, _ = self._mounts.popitem()
            with contextlib.suppress(OSError):
                mounts.umount(path, mounts.UMOUNT_NOFOLLOW | mounts.MNT_DETACH)

    # -- requests -----------------------------------------------------------------------------------------------

    def _start(self, request: launch.StartWorker, _: list[int]) -> None:
        inside = self._inside(request)
        if (request.kind == "files") != (request.session is not None):
            self._supervisor.refuse(request.id, "worker", errno.EINVAL, "only `files` works inside a session")
        elif request.session is not None and inside is None:
            self._supervisor.refuse(request.id, "session", errno.ESRCH, f"session {request.session!r} is not open")
        elif len(self._workers) >= WORKER_LIMIT:
            self._supervisor.refuse(request.id, "worker", errno.EMFILE, f"{WORKER_LIMIT} workers are there already")
        else:
            self._fork(request, inside)

    def _inside(self, request: launch.StartWorker) -> Inside | None:
        session = self._sessions.get(request.session or "")
        if session is None:
            return None
        return Inside(
            session=session.name,
            uid=session.uid,
            gid=session.gid,
            mount_namespace=session.mount_namespace,
            cgroup=self._own_cgroup(session.name),
        )

    def _fork(self, request: launch.StartWorker, inside: Inside | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        work = Worker(kind=request.kind, inside=inside, socket_fd=theirs.fileno())
        keep = (theirs.fileno(), *(() if inside is None else (inside.mount_namespace,)))
        try:
            errand = Errand(work.run, name=f"coworkd-{request.kind}", keep=keep, deadline_s=_START_DEADLINE_S)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._last_number += 1
        worker = HeldWorker(self._last_number, request, errand, ours)
        self._workers[worker.number] = worker
        self._readers.register(errand.fileno(), partial(self._told, worker))

    def _told(self, worker: HeldWorker) -> None:
        report, _ = worker.errand.take()
        request = worker.request
        if request is None:
            return
        if report.failed is not None:
            self._end(worker)
            self._refuse(worker, report.errno, report.message)
            return
        started = launch.WorkerStarted(id=request.id, worker=worker.number, pid=worker.errand.pid)
        self._supervisor.send(started, (worker.socket_end.fileno(),))
        worker.request = None
        worker.due = None
        self._settle_start(worker)

    def _refuse(self, worker: HeldWorker, number: int | None, message: str) -> None:
        """Whoever waits for its start is told that it has none."""
        request, worker.request = worker.request, None
        if request is not None:
            self._supervisor.refuse(request.id, "worker", number, message)
            self._settle_start(worker)

    def _settle_start(self, worker: HeldWorker) -> None:
        self._readers.unregister(worker.errand.fileno())
        worker.errand.close()
        worker.socket_end.close()
        if worker.errand.gone:
            self._workers.pop(worker.number, None)

    def _end(self, worker: HeldWorker) -> None:
        worker.errand.kill()
        worker.due = None

    def _kill(self, request: launch.KillWorker, _: list[int]) -> None:
        worker = self._workers.get(request.worker)
        if worker is not None:
            self._end(worker)
        self._supervisor.send(launch.Done(id=request.id))

    def _own_mount(self, request: launch.OwnMount, _: list[int]) -> None:
        if not request.owned:
            self._mounts.pop(request.path, None)
        elif not request.path.startswith(b"/") or b"\0" in request.path:
            self._supervisor.refuse(request.id, "mount", errno.EINVAL, "a mount has an absolute path")
            return
        elif len(self._mounts) >= MOUNT_LIMIT and request.path not in self._mounts:
            self._supervisor.refuse(request.id, "mount", errno.EMFILE, f"{MOUNT_LIMIT} mounts are owned already")
            return
        else:
            self._mounts[request.path] = None
        self._supervisor.send(launch.Done(id=request.id))
