"""The folders of the launcher's sessions: mounted and taken away by children, while everything else goes on.

Rules
- Steps: the source (`folder_source`, with the deadline asked for), for a stage the overlay, then its place in the session's view. What the
  first two make is a detached mount in this program's hands: whatever fails before the last step leaves nothing.
- One thing at a time is done to a folder. One that stands as it is asked for is answered as it stands, so that a supervisor that was
  started again finds its folders by asking for them; a supervisor that has gone is not answered.
- A file system that has ended leaves its folder there, failing with ENOTCONN; to ask for the folder mounts it anew.
- What is asked is checked again here: names and paths. At most `FOLDER_LIMIT`, those included that are still being let go of.

Whether a session may have a folder is not decided here.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from coworkd.launcher.errand import Errand, Report
from coworkd.launcher.folder import Folder, FolderState, Server
from coworkd.launcher.folder_place import FolderOverlay, FolderPlace
from coworkd.launcher.folder_request import find_name_problem, find_problem
from coworkd.launcher.folder_source import FolderSource
from coworkd.launcher.readers import Readers
from coworkd.launcher.session import Session
from coworkd.launcher.supervisor import Supervisor
from coworkd.model import launch

FOLDER_LIMIT = 512
HUNG_LIMIT = 64
"""So many children may hang in the kernel, killed and not to be reaped, before another is made."""
_PLACE_DEADLINE_S = 10.0


class Closing(NamedTuple):
    """A session whose folders are taken away, because it closes."""

    errand: Errand
    servers: list[Server]
    """To be ended afterwards."""
    done: Callable[[], None]


class Folders:
    """Every folder, in whatever state."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        *,
        base: bytes,
        readers: Readers,
        supervisor: Supervisor,
        own_cgroup: Callable[[str], str | None],
        on_changed: Callable[[str], None],
    ) -> None:
        """`base` is an empty directory; `own_cgroup` makes the one for a session's file systems; `on_changed` is told of each session
        whose folders have become others.
        """
        self._sessions = sessions
        self._base = base
        self._readers = readers
        self._supervisor = supervisor
        self._own_cgroup = own_cgroup
        self._on_changed = on_changed
        self._folders: dict[tuple[str, str], Folder] = {}
        self._leaving: dict[int, tuple[str, Server]] = {}
        """File systems of folders that are out of sight, by pid, with their session: they end with the folder's last user."""
        self._unreaped: dict[int, Errand] = {}
        self._under_way: dict[int, Folder] = {}
        """Folders that something is being done to, by the pid of the child that does it."""
        self._hung: set[int] = set()
        """Steps that were killed and live still: they hang in the kernel."""
        self._closings: dict[int, Closing] = {}

    def handlers(self) -> dict[type, Callable[[Any, list[int]], None]]:
        """Request → who answers it."""
        return {launch.MountFolder: self._mount, launch.UnmountFolder: self._unmount}

    # -- time, the dead, and the supervisor -----------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When (monotonic) `end_late` has something to do."""
        if not self._under_way and not self._closings:
            return None
        steps = [folder.errand.deadline for folder in self._under_way.values() if folder.errand is not None]
        return min((*steps, *(closing.errand.deadline for closing in self._closings.values())), default=None)

    def end_late(self) -> None:
        """Kill the steps that did not answer in time."""
        now = time.monotonic()
        for folder in list(self._under_way.values()):
            if folder.errand is not None and now > folder.errand.deadline:
                self._hung.add(folder.errand.pid)
                self._drop_errand(folder, kill=True)
                self._fail(folder, Report(failed="probe", errno=errno.ETIMEDOUT, message="it did not answer in time"))
        for closing in list(self._closings.values()):
            if now > closing.errand.deadline:
                closing.errand.kill()
                self._closed(closing)

    def reaped(self, pid: int) -> None:
        """A child is gone: a step, or a folder's file system."""
        errand = self._unreaped.pop(pid, None)
        if errand is None:
            return
        errand.reaped()
        self._hung.discard(pid)
        leaving = self._leaving.pop(pid, None)
        if leaving is not None:
            leaving[1].close()
            return
        for folder in self._folders.values():
            if folder.server is not None and folder.server.errand is errand:
                folder.server.alive = False
                if folder.state is FolderState.MOUNTED:
                    print(
                        f"coworkd-launcher: the file system of folder {folder.request.name!r} of session"
                        f" {folder.request.session!r} has ended",
                        file=sys.stderr,
                    )

    def names(self, session: str) -> tuple[str, ...]:
        """Those of its folders that stand, or that something is being done to."""
        return tuple(name for held, name in self._folders if held == session)

    def guarded(self, session: str) -> list[tuple[Folder, FolderPlace]]:
        """Those of its folders that our own file system serves."""
        return [
            (folder, self._place(folder))
            for folder in self._folders.values()
            if folder.request.session == session and folder.state is FolderState.MOUNTED and not folder.dead
            if folder.mounted_as == "guarded"
        ]

    def cut_off(self, folder: Folder) -> None:
        """It was parted from its users, because its source hangs."""
        if folder.server is not None:
            folder.server.part()
            print(
                f"coworkd-launcher: folder {folder.request.name!r} of session {folder.request.session!r} was cut off:"
                " its source does not answer",
                file=sys.stderr,
            )

    def forget_waiters(self) -> None:
        """The supervisor has gone: what is under way goes on, and nobody is answered."""
        for folder in self._folders.values():
            folder.waiter = None

    def close_session(self, session: Session, done: Callable[[], None]) -> None:
        """Take away all there is of a session that closes, the last one first, and call `done`: at once where there is nothing,
        and in any case after `_PLACE_DEADLINE_S`. Raises `OSError` where no child can be had, and then everything stands.
        """
        folders = [folder for folder in self._folders.values() if folder.request.session == session.name]
        lingering = [server for name, server in self._leaving.values() if name == session.name]
        if not folders:
            for server in lingering:
                server.end()
            done()
            return
        place = FolderPlace(session=session.name, uid=session.uid, name="", mount_namespace=session.mount_namespace)
        away = tuple((folder.request.name, folder.server_pid) for folder in reversed(folders))
        work = partial(place.detach_all, folders=away)
        keep = (session.mount_namespace,)
        errand = Errand(work, name="coworkd-folder", keep=keep, deadline_s=_PLACE_DEADLINE_S)
        closing = Closing(errand, [*lingering, *(each.server for each in folders if each.server is not None)], done)
        self._closings[errand.pid] = closing
        self._unreaped[errand.pid] = errand
        self._readers.register(errand.fileno(), partial(self._closed, closing))
        for folder in folders:
            self._forget(folder)

    def _closed(self, closing: Closing) -> None:
        self._readers.unregister(closing.errand.fileno())
        closing.errand.close()
        del self._closings[closing.errand.pid]
        for server in closing.servers:
            server.end()
        closing.done()

    def _forget(self, folder: Folder) -> None:
        """Its session has closed: whoever asked for it is told, and its file system is let go of."""
        del self._folders[folder.key]
        self._drop_errand(folder, kill=True)
        if folder.waiter is not None:
            self._supervisor.refuse(folder.waiter, "session", errno.ESRCH, "the session was closed meanwhile")
        self._let_go_of_server(folder, end=False)

    def end(self) -> None:
        """Everything goes."""
        for folder in list(self._folders.values()):
            self._forget(folder)
        for _, server in self._leaving.values():
            server.end()

    # -- mounting -------------------------------------------------------------------------------------------------

    def _mount(self, request: launch.MountFolder, _: list[int]) -> None:
        session = self._sessions.get(request.session)
        problem = find_problem(request)
        if session is None:
            self._supervisor.refuse(request.id, "session", errno.ESRCH, f"session {request.session!r} is not open")
            return
        if problem is not None:
            self._supervisor.refuse(request.id, "folder", errno.EINVAL, problem)
            return
        known = self._folders.get((request.session, request.name))
        if known is not None:
            self._mount_known(known, request)
        elif len(self._folders) + len(self._leaving) >= FOLDER_LIMIT:
            self._supervisor.refuse(request.id, "folder", errno.EMFILE, f"{FOLDER_LIMIT} folders are mounted already")
        elif len(self._hung) >= HUNG_LIMIT:
            self._supervisor.refuse(
                request.id, "folder", errno.EBUSY, f"{HUNG_LIMIT} mounts hang in their sources already"
            )
        else:
            self._begin(request, session)

    def _mount_known(self, known: Folder, request: launch.MountFolder) -> None:
        if known.state is not FolderState.MOUNTED:
            if known.state is FolderState.MOUNTING and known.waiter is None and known.is_like(request):
                known.waiter = request.id
                return
            self._supervisor.refuse(request.id, "folder", errno.EBUSY, f"{known.state.value}; ask again")
        elif not known.is_like(request):
            self._supervisor.refuse(
                request.id, "folder", errno.EEXIST, "it is mounted in another way; take it away first"
            )
        elif known.dead:
            self._folders.pop(known.key)
            self._let_go_of_server(known, end=True)
            self._begin(
                request, self._sessions[request.session], news=("its file system had ended; it was mounted anew",)
            )
        else:
            known.request = request
            known.waiter = request.id
            self._tell_mounted(known)

    def _begin(self, request: launch.MountFolder, session: Session, *, news: tuple[str, ...] = ()) -> None:
        folder = Folder(request)
        folder.news = news
        source = FolderSource(request=request, uid=session.uid, gid=session.gid, cgroup=self._own_cgroup(session.name))
        self._start(folder, source.run, self._source_made, deadline_s=request.deadline_s)
        self._folders[folder.key] = folder

    def _source_made(self, folder: Folder, errand: Errand, report: Report, fds: list[int]) -> None:
        folder.mounted_as = report.mounted_as
        folder.degraded += report.degraded
        if report.mounted_as == "guarded":
            folder.server = Server(errand, fds.pop())
        (mount,) = fds
        if folder.request.mode == "staged":
            overlay = FolderOverlay(lower=mount, stage=folder.request.stage, base=self._base)
            deadline_s = folder.request.deadline_s
            self._go_on(folder, overlay.run, self._overlay_made, mount, deadline_s=deadline_s)
        else:
            self._attach(folder, mount, is_directory=report.is_directory)

    def _overlay_made(self, folder: Folder, errand: Errand, report: Report, fds: list[int]) -> None:
        folder.mounted_as = "overlay"
        self._attach(folder, fds[0], is_directory=True)

    def _attach(self, folder: Folder, mount: int, *, is_directory: bool) -> None:
        place = self._place(folder)
        attach = partial(place.attach, mount=mount, is_directory=is_directory)
        self._go_on(folder, attach, self._attached, mount, place.mount_namespace, deadline_s=_PLACE_DEADLINE_S)

    def _attached(self, folder: Folder, errand: Errand, report: Report, fds: list[int]) -> None:
        folder.state = FolderState.MOUNTED
        self._on_changed(folder.request.session)
        self._tell_mounted(folder)

    def _tell_mounted(self, folder: Folder) -> None:
        if folder.waiter is not None:
            sent = () if folder.server is None or folder.mounted_as != "guarded" else (folder.server.socket_fd,)
            degraded = (*folder.news, *folder.degraded)
            answer = launch.FolderMounted(id=folder.waiter, mounted_as=folder.mounted_as, degraded=degraded)
            self._supervisor.send(answer, sent)
            folder.waiter = None
            folder.news = ()

    # -- unmounting -----------------------------------------------------------------------------------------------

    def _unmount(self, request: launch.UnmountFolder, _: list[int]) -> None:
        if request.session not in self._sessions or find_name_problem(request.name) is not None:
            self._supervisor.send(launch.FolderUnmounted(id=request.id))
            return
        # Unknown or not, its place is looked at: the mount of a file system that has died may be left there.
        unknown = launch.MountFolder(
            id=request.id, session=request.session, name=request.name, root=b"/", source=b".", mode="ro"
        )
        folder = self._folders.get((request.session, request.name)) or Folder(unknown, FolderState.MOUNTED)
        if folder.state is not FolderState.MOUNTED:
            self._supervisor.refuse(request.id, "folder", errno.EBUSY, f"{folder.state.value}; ask again")
            return
        place = self._place(folder)
        self._start(
            folder,
            partial(place.detach, lazy=request.lazy),
            self._detached if request.lazy else self._detached_unless_busy,
            place.mount_namespace,
            deadline_s=_PLACE_DEADLINE_S,
        )
        folder.state = FolderState.UNMOUNTING
        folder.waiter = request.id
        self._folders[folder.key] = folder

    def _detached(self, folder: Folder, errand: Errand, report: Report, fds: list[int]) -> None:
        self._folders.pop(folder.key)
        self._on_changed(folder.request.session)
        self._let_go_of_server(folder, end=not report.busy)
        if folder.waiter is not None:
            self._supervisor.send(
                launch.FolderUnmounted(id=folder.waiter, busy=report.busy, leftovers=report.leftovers)
            )

    def _detached_unless_busy(self, folder: Folder, errand: Errand, report: Report, fds: list[int]) -> None:
        if not report.busy:
            self._detached(folder, errand, report, fds)
            return
        folder.state = FolderState.MOUNTED
        waiter, folder.waiter = folder.waiter, None
        if waiter is not None:
            self._supervisor.send(launch.FolderUnmounted(id=waiter, busy=True, leftovers=report.leftovers))

    # -- steps ----------------------------------------------------------------------------------------------------

    def _place(self, folder: Folder) -> FolderPlace:
        session = self._sessions[folder.request.session]
        return FolderPlace(
            session=session.name,
            uid=session.uid,
            name=folder.request.name,
            mount_namespace=session.mount_namespace,
            server_pid=folder.server_pid,
        )

    def _start(
        self,
        folder: Folder,
        work: Callable[[Any], None],
        done: Callable[[Folder, Errand, Report, list[int]], None],
        *keep: int,
        deadline_s: float,
    ) -> None:
        errand = Errand(work, name="coworkd-folder", keep=keep, deadline_s=deadline_s)
        folder.errand = errand
        self._under_way[errand.pid] = folder
        self._unreaped[errand.pid] = errand
        self._readers.register(errand.fileno(), partial(self._told, folder, done))

    def _go_on(
        self,
        folder: Folder,
        work: Callable[[Any], None],
        done: Callable[[Folder, Errand, Report, list[int]], None],
        mount: int,
        *keep: int,
        deadline_s: float,
    ) -> None:
        """The next step of a folder, with the mount that the one before has made, which is the child's alone from then on."""
        try:
            self._start(folder, work, done, mount, *keep, deadline_s=deadline_s)
        except OSError as error:
            self._fail(folder, Report(failed="resources", errno=error.errno, message=str(error.strerror)))
        finally:
            os.close(mount)

    def _told(self, folder: Folder, done: Callable[[Folder, Errand, Report, list[int]], None]) -> None:
        errand = folder.errand
        if errand is None:
            return
        report, fds = errand.take()
        self._drop_errand(folder, kill=False)
        if report.failed is not None:
            _close_all(fds)
            self._fail(folder, report)
        else:
            done(folder, errand, report, fds)

    def _drop_errand(self, folder: Folder, *, kill: bool) -> None:
        errand, folder.errand = folder.errand, None
        if errand is not None:
            del self._under_way[errand.pid]
            self._readers.unregister(errand.fileno())
            errand.close()
            if kill:
                errand.kill()

    def _fail(self, folder: Folder, report: Report) -> None:
        waiter, folder.waiter = folder.waiter, None
        if folder.state is FolderState.UNMOUNTING:
            folder.state = FolderState.MOUNTED
        else:
            self._folders.pop(folder.key)
            self._let_go_of_server(folder, end=True)
        if waiter is not None:
            self._supervisor.refuse(waiter, report.failed or "folder", report.errno, report.message)

    def _let_go_of_server(self, folder: Folder, *, end: bool) -> None:
        server, folder.server = folder.server, None
        if server is None:
            return
        if not server.alive:
            server.close()
            return
        if end:
            server.end()
        self._leaving[server.errand.pid] = folder.request.session, server


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
