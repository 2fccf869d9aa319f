"""Making one sandbox: descriptors, limits, and the order to a standby.

What bubblewrap executes has 0, 1 and 2. bubblewrap gets, and closes before that: 3 its options, 4 and 5 the two filters, 6 its status
pipe, 7 its gate. Where it executes the shim there is no gate: 7 is the shim's link, 8 its source, and 0, 1 and 2 are of no command.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterator, Sequence

from coworkd.launcher import child
from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.filters import Filters
from coworkd.launcher.forker import Forker
from coworkd.launcher.handover import Handover
from coworkd.launcher.oom import OomLevels
from coworkd.launcher.order import Order
from coworkd.launcher.outfit import Outfit, Plumbing
from coworkd.launcher.process import Process
from coworkd.launcher.session import Session
from coworkd.launcher.shim_program import ShimProgram
from coworkd.launcher.standby import Standby
from coworkd.launcher.status import StatusReader
from coworkd.launcher.warm import WarmSandbox
from coworkd.model.launch import Spawn
from coworkd.model.limits import CgroupLimits, Rlimits
from coworkd.sandbox.bwrap_plan import plan_command
from coworkd.system import cgroup, cgroup_limits
from coworkd.system.memfd import make_sealed

HELPERS, COMMANDS = "helpers", "commands"
"""The cgroups, below a session's, of what serves its folders and works inside it, and of its commands."""
_MEMLOCK_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LAUNCHER_OPTIONS = (
    b"--add-seccomp-fd",
    b"%d" % child.FD_BASE_FILTER,
    b"--add-seccomp-fd",
    b"%d" % child.FD_ADMIN_FILTER,
    b"--json-status-fd",
    b"%d" % child.FD_STATUS,
)


def is_name(text: str) -> bool:
    """Whether `text` can stand in the path of a cgroup: a session's or a process's name, and never a way out of it."""
    return _NAME.match(text) is not None


class Spawner:
    """Starts commands; holds what all of them share."""

    def __init__(
        self,
        bubblewrap: bytes,
        cgroup_root: str | None,
        missing_controllers: tuple[str, ...],
        filters: Filters,
        forker: Forker,
    ) -> None:
        self._bubblewrap = bubblewrap
        self._cgroup_root = cgroup_root
        self._limit_processes = "pids" in missing_controllers
        self._filters = filters
        self._ooms = OomLevels(cgroup_root)
        self._pid = os.getpid()
        self._forker = forker
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._shim = ShimProgram()
        self._ready_outfit: Outfit | None = None
        self._made = 0
        self._left: set[str] = set()
        """Cgroups of attempts that failed: a child that was killed may not have left its own yet. Each is tried again with the next one."""

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
        try:
            return self._make_standby(session, ahead=ahead)
        except (ConnectionError, TimeoutError):  # the forker was killed, by us where it hung: this has another one
            return self._make_standby(session, ahead=ahead)

    def _make_standby(self, session: Session, *, ahead: bool) -> Standby:
        self._made += 1
        above = self.commands_cgroup(session.name)
        path = None if above is None else f"{above}/p-{self._made}"
        if self._left:
            self._left = {left for left in self._left if not cgroup.remove(left)}
        try:
            return Standby(
                self._forker,
                uid=session.uid,
                gid=session.gid,
                mount_namespace=session.mount_namespace,
                network_namespace=session.network_namespace,
                launcher_pid=self._pid,
                cgroup_path=path,
                ahead=ahead,
            )
        except OSError:
            if path is not None:
                self._left.add(path)
            raise

    # -- a command ----------------------------------------------------------------------------------------------

    def spawn(self, request: Spawn, session: Session, warm: WarmSandbox | None) -> Process:
        """Have `warm`, or else a sandbox of its own, become `request`. Raises `OSError`, and nothing stays of the attempt."""
        try:
            outfit = self._take_outfit(request)
        except OSError:
            if warm is not None:
                warm.dismiss()
            raise
        try:
            if warm is None and request.tty is None:
                bwrap = self._build(request, session, outfit)
                outfit.give_away()
                return Process(request, bwrap, fds=outfit.kept, gate=outfit.gate, ooms=self._ooms)
            outfit.add_exec()
            handover = Handover(request, outfit, native=self._forker.formats.native)
        except OSError:
            outfit.close()
            if warm is not None:
                warm.dismiss()
            raise
        try:
            bwrap = self.make_shimmed(request, session) if warm is None else warm.take(request.limits)
        except OSError:
            handover.close()
            outfit.close()
            raise
        return Process(
            request,
            bwrap,
            fds=outfit.kept,
            gate=outfit.gate,
            exec_fd=outfit.exec_fd,
            handover=handover,
            ooms=self._ooms,
        )

    def build_again(self, process: Process, session: Session) -> Bwrap:
        """Another sandbox for `process`, whose own has died without running it. Raises `OSError`."""
        request, handover = process.request, process.handover
        if request is None or handover is None:
            raise BrokenPipeError(errno.EPIPE, "the command was let in already")
        if request.tty is None:
            return self._build(request, session, handover.outfit)
        bwrap = self.make_shimmed(request, session)
        process.exec_fd = handover.renew()
        return bwrap

    def make_shimmed(self, request: Spawn, session: Session) -> Bwrap:
        """A sandbox as `request` wants it, with nothing of its command in it: a shim that waits. Raises `OSError`."""
        plumbing = Plumbing(self._null, shim_fd=self._shim.open(request.shim[0]))
        argv = (*request.shim, b"/proc/self/fd/%d" % child.FD_SHIM)
        return self._order(request, session, plumbing, argv, plan_command(b"/", ()), looked_at=b"", more=())

    def _build(self, request: Spawn, session: Session, outfit: Outfit) -> Bwrap:
        plumbing = Plumbing(self._null)
        own = (*plan_command(request.cwd, request.environment), b"--block-fd", b"%d" % child.FD_GATE)
        given = (outfit.gate.read, *outfit.given)
        bwrap = self._order(request, session, plumbing, request.argv, own, looked_at=request.argv[0], more=given)
        bwrap.diagnostics_fd = outfit.kept.get("stderr", -1)
        return bwrap

    def _order(
        self,
        request: Spawn,
        session: Session,
        plumbing: Plumbing,
        argv: Sequence[bytes],
        options: Sequence[bytes],
        *,
        looked_at: bytes,
        more: Sequence[int],
    ) -> Bwrap:
        """Have a standby become bubblewrap; `plumbing` is the bwrap's, or closed."""
        order = Order(
            executable=self._bubblewrap,
            command=looked_at,
            cwd=request.cwd,
            search_path=_search_path(request.environment),
            rlimits=tuple(_rlimits(request.rlimits, limit_processes=self._limit_processes)),
            argv=(b"bwrap", b"--args", b"%d" % child.FD_ARGS, b"--", *argv),
        )
        given: list[int] = []
        try:
            words = (*request.bwrap_args, *options, *_LAUNCHER_OPTIONS)
            given.append(make_sealed("bwrap-args", b"\0".join(words) + b"\0"))
            for name in request.filters:
                given.append(self._filters.open(name))
            standby = self._send(order, session, request.limits, [*given, *plumbing.given, *more])
        except OSError:
            plumbing.close()
            raise
        finally:
            for fd in given:
                os.close(fd)
        plumbing.give_away()
        return Bwrap(
            monitor_pid=standby.pid,
            status=StatusReader(plumbing.status),
            error_fd=standby.error_fd,
            diagnostics_fd=plumbing.diagnostics,
            link=plumbing.link,
            cgroup_path=standby.cgroup_path,
        )

    def _send(self, order: Order, session: Session, limits: CgroupLimits, fds: Sequence[int]) -> Standby:
        waiting = session.take_standby()
        if waiting is not None:
            try:
                return _give(waiting, order, limits, fds)
            except (BrokenPipeError, ConnectionResetError):  # it was killed while it waited, and is not reaped yet
                pass
        return _give(self.make_standby(session, ahead=False), order, limits, fds)

    def _take_outfit(self, request: Spawn) -> Outfit:
        if request.tty is not None:
            return Outfit(self._null, terminal=True)
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


def _search_path(environment: Sequence[bytes]) -> bytes:
    """The command's PATH; empty where it has none."""
    return next((word[5:] for word in environment if word.startswith(b"PATH=")), b"")


def _rlimits(wanted: Rlimits, *, limit_processes: bool) -> Iterator[tuple[int, int]]:
    """For the order; `limit_processes` where no cgroup counts them."""
    yield resource.RLIMIT_NOFILE, wanted.nofile
    yield resource.RLIMIT_CORE, wanted.core_bytes
    yield resource.RLIMIT_MEMLOCK, _MEMLOCK_BYTES
    if limit_processes:
        yield resource.RLIMIT_NPROC, wanted.nproc
    if wanted.fsize_bytes is not None:
        yield resource.RLIMIT_FSIZE, wanted.fsize_bytes
    if wanted.cpu_s is not None:
        yield resource.RLIMIT_CPU, wanted.cpu_s


def _give(standby: Standby, order: Order, limits: CgroupLimits, fds: Sequence[int]) -> Standby:
    """Set its limits, then give the order. Raises `OSError`, and it is dismissed then."""
    try:
        if standby.cgroup_path is not None:
            cgroup_limits.limit(standby.cgroup_path, limits)
        standby.send(order, fds)
    except OSError:
        standby.dismiss()
        raise
    return standby
