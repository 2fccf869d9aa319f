"""Making one sandbox: descriptors, limits, and the order to a standby.

The command's own descriptors are 0, 1 and 2. bubblewrap gets, and closes before the command runs: 3 its options, 4 and 5 the
two filters, 6 its status pipe, 7 its gate. A terminal's shim gets 8 (a socket for the master), 9 (a pipe that says how its
exec went) and 10 (its own source).
"""

from __future__ import annotations

import os
import re

from coworkd import sandbox
from coworkd.launcher import child
from coworkd.launcher.formats import Formats
from coworkd.launcher.oom import OomLevels
from coworkd.launcher.outfit import Outfit
from coworkd.launcher.process import Process
from coworkd.launcher.session import Session
from coworkd.launcher.standby import Standby
from coworkd.launcher.status import StatusReader
from coworkd.model.launch import Spawn
from coworkd.system import cgroup

HELPERS, COMMANDS = "helpers", "commands"
"""The cgroups, below a session's, of what serves its folders and works inside it, and of its commands."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LAUNCHER_OPTIONS = (
    b"--add-seccomp-fd",
    b"%d" % child.FD_BASE_FILTER,
    b"--add-seccomp-fd",
    b"%d" % child.FD_ADMIN_FILTER,
    b"--json-status-fd",
    b"%d" % child.FD_STATUS,
    b"--block-fd",
    b"%d" % child.FD_GATE,
)


def is_name(text: str) -> bool:
    """Whether `text` can stand in the path of a cgroup: a session's or a process's name, and never a way out of it."""
    return _NAME.match(text) is not None


class Spawner:
    """Starts commands; holds what all of them share."""

    def __init__(self, bubblewrap: bytes, cgroup_root: str | None, missing_controllers: tuple[str, ...]) -> None:
        self._bubblewrap = bubblewrap
        self._cgroup_root = cgroup_root
        self._limit_processes = "pids" in missing_controllers
        self._ooms = OomLevels(cgroup_root)
        self._pid = os.getpid()
        self._formats = Formats(bubblewrap)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._shim = -1
        self._ready_outfit: Outfit | None = None
        self._made = 0

    def session_cgroup(self, session: str) -> str | None:
        """Where the session's processes live; the prefix keeps names apart from the kernel's own files."""
        return None if self._cgroup_root is None else f"{self._cgroup_root}/s-{session}"

    def commands_cgroup(self, session: str) -> str | None:
        """Where its commands are, each in a cgroup of its own: what is frozen when the session is paused."""
        above = self.session_cgroup(session)
        return None if above is None else f"{above}/{COMMANDS}"

    def forget(self, session: str) -> None:
        """Its cgroup goes."""
        self._ooms.forget(self.session_cgroup(session) or "")

    def helpers_cgroup(self, session: str) -> str | None:
        """The cgroup of what serves the session's folders, made where it is missing. Raises `OSError`."""
        above = self.session_cgroup(session)
        if above is None:
            return None
        path = f"{above}/{HELPERS}"
        cgroup.create(path)
        return path

    def make_standby(self, session: Session, *, ahead: bool = True) -> Standby:
        """A child waiting in `session`, `ahead` of its order if nobody waits for that. Raises `OSError`."""
        self._made += 1
        above = self.commands_cgroup(session.name)
        path = None if above is None else f"{above}/p-{self._made}"
        return Standby(
            uid=session.uid,
            gid=session.gid,
            mount_namespace=session.mount_namespace,
            network_namespace=session.network_namespace,
            launcher_pid=self._pid,
            formats=self._formats,
            cgroup_path=path,
            ahead=ahead,
        )

    def spawn(self, request: Spawn, session: Session, filters: tuple[int, int]) -> Process:
        """Order the session's standby to become `request`. Raises `OSError`, and nothing stays of the attempt."""
        waiting = session.take_standby()
        if waiting is not None:
            try:
                return self._order(request, waiting, filters)
            except (BrokenPipeError, ConnectionResetError):  # it was killed while it waited, and is not reaped yet
                pass
        return self._order(request, self.make_standby(session, ahead=False), filters)

    def _order(self, request: Spawn, standby: Standby, filters: tuple[int, int]) -> Process:
        outfit: Outfit | None = None
        try:
            outfit = self._take_outfit(request)
            self._limit(request, standby)
            self._send(request, standby, outfit, filters)
        except OSError:
            standby.dismiss()
            if outfit is not None:
                outfit.close()
            raise
        outfit.give_away()
        return Process(
            request,
            monitor_pid=standby.pid,
            status=StatusReader(outfit.status),
            error_fd=standby.error_fd,
            gate_fd=outfit.gate,
            exec_fd=outfit.exec_fd,
            diagnostics_fd=outfit.diagnostics,
            fds=outfit.kept,
            cgroup_path=standby.cgroup_path,
            ooms=self._ooms,
        )

    def _send(self, request: Spawn, standby: Standby, outfit: Outfit, filters: tuple[int, int]) -> None:
        order = child.Order(
            executable=self._bubblewrap,
            argv=(b"bwrap", b"--args", b"%d" % child.FD_ARGS, b"--", *request.shim_args, *request.argv),
            command=request.argv[0],
            cwd=request.cwd,
            search_path=request.search_path,
            rlimits=request.rlimits,
            limit_processes=self._limit_processes,
        )
        own: list[int] = []
        try:
            own.append(_memfd("bwrap-args", b"\0".join((*request.bwrap_args, *_LAUNCHER_OPTIONS)) + b"\0"))
            for fd in filters:
                # bubblewrap reads a filter from the current offset, so every spawn needs a description of its own.
                own.append(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
            standby.send(order, [*own, *outfit.given])
        finally:
            for fd in own:
                os.close(fd)

    def _take_outfit(self, request: Spawn) -> Outfit:
        if request.tty:
            return Outfit(self._null, shim_fd=self._shim_source())
        outfit, self._ready_outfit = self._ready_outfit or Outfit(self._null), None
        if request.stdin:
            try:
                outfit.add_stdin()
            except OSError:
                outfit.close()
                raise
        return outfit

    def make_ready(self) -> None:
        """Lay out the descriptors of the next command ahead. Raises `OSError`."""
        if self._ready_outfit is None:
            self._ready_outfit = Outfit(self._null)

    def _limit(self, request: Spawn, standby: Standby) -> None:
        if standby.cgroup_path is not None:
            cgroup.limit(standby.cgroup_path, request.limits)

    def _shim_source(self) -> int:
        if self._shim < 0:
            path = os.path.join(os.path.dirname(sandbox.__file__), "shim.py")
            with open(path, "rb") as file:
                self._shim = _memfd("coworkd-shim", file.read())
        return self._shim


def _memfd(name: str, content: bytes = b"") -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    if content:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd
