"""One bubblewrap, from its order to the reaping of its init, whatever runs in it.

Three pids: `monitor_pid` (bubblewrap, our child), `init_pid` (bubblewrap's own pid 1 in the sandbox; reparented to us when the monitor
has gone) and `payload_pid` (what it executes: the command, or the shim that becomes it). Facts arrive in any order from the status
pipe, the process connector and wait4; whoever the bwrap belongs to hears of each by `on_news`.

Rules
- The exact wait status is the connector's; without it 129 to 192 is told as a signal, `inferred`. The connector tells of the first
  thread's end: where the others go on after that, how the process ends is bubblewrap's to say.
- rusage is the init's: bubblewrap's monitor leaves before it reaps its init and would report none. What the shim had used while it
  waited is not the command's, and is taken off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from resource import struct_rusage

from coworkd.launcher.shim_usage import NOTHING, ShimUsage, parse_ready
from coworkd.launcher.status import StatusReader
from coworkd.model.process import Rusage
from coworkd.system import cgroup

_DIAGNOSTICS_LIMIT_BYTES = 64 * 1024
_READY_LIMIT_BYTES = 256
_INFERRED_SIGNALS = range(129, 193)


class Bwrap:
    """Owns its descriptors and cgroup until `close`; of `diagnostics_fd` only where a shim runs, else it is the command's stderr."""

    __slots__ = (
        "_rusage",
        "cgroup_path",
        "diagnostics_fd",
        "error_fd",
        "executed",
        "executed_at",
        "init_pid",
        "killed",
        "link",
        "monitor_pid",
        "monitor_status",
        "on_news",
        "payload_pid",
        "payload_pidfd",
        "payload_status",
        "shim_usage",
        "shimmed",
        "status",
    )

    def __init__(
        self,
        *,
        monitor_pid: int,
        status: StatusReader,
        error_fd: int,
        diagnostics_fd: int,
        link: socket.socket | None,
        cgroup_path: str | None,
    ) -> None:
        """`link` is there where a shim waits for the command."""
        self.monitor_pid = monitor_pid
        self.status = status
        self.error_fd: int | None = error_fd
        self.diagnostics_fd = diagnostics_fd
        self.link = link
        self.shimmed = link is not None
        """Whether it is a shim that executes the command."""
        self.cgroup_path = cgroup_path
        self.on_news: Callable[[], None] = _nobody_asks
        self.init_pid: int | None = None
        self.payload_pid: int | None = None
        self.payload_pidfd: int | None = None
        self.payload_status: int | None = None
        self.monitor_status: int | None = None
        self.executed = False
        """Whether the command's own execve(2) was seen to succeed."""
        self.executed_at = 0.0
        self.killed = False
        self.shim_usage: ShimUsage | None = None
        """What the shim had used when it could become a command; None where there is none or it is not as far."""
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

    def hear_out(self) -> None:
        """Bubblewrap has gone: take all that it has told, while its init is still ending."""
        self.status.drain()
        if self.status.init_pid is not None:
            self.learn_init(self.status.init_pid)

    def learn_payload(self, pid: int) -> None:
        if self.payload_pid is None:
            self.payload_pid = pid
            # Gone already, or no descriptor is left: it cannot be signalled then, only killed.
            with contextlib.suppress(OSError):
                self.payload_pidfd = os.pidfd_open(pid)

    def learn_exec(self, at: float | None = None) -> None:
        """It was `at` (seconds, `time.time`), or just now."""
        now = time.time()
        self.executed, self.executed_at = True, now if at is None else min(at, now)
        self.hear_ready()
        self._close_shims()

    def learn_reaped(self, pid: int, status: int, usage: struct_rusage) -> bool:
        """A child was reaped; True if it was one of ours."""
        if pid == self.monitor_pid:
            self.monitor_status = status
        elif pid == self.init_pid:
            self._rusage = (self.shim_usage or NOTHING).take_off(usage)
        else:
            return False
        return True

    def learn_orphaned(self) -> bool:
        """Ask, once bubblewrap has gone, whether its init is ours to wait for; True if it turns out that it is not.

        A sandbox that fails while it is set up is reaped by bubblewrap itself, and then no rusage is to be had.
        """
        if not self.orphaned or self.init_pid is None:
            return False
        try:
            os.waitid(os.P_PID, self.init_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._rusage = NO_RUSAGE
            return True
        return False

    def hear_ready(self) -> bool:
        """Take what the shim says of itself; False where it has not said anything new. Its end is told by its death."""
        if self.link is None or self.shim_usage is not None:
            return False
        try:
            said = self.link.recv(_READY_LIMIT_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return False
        self.shim_usage = parse_ready(said)
        return self.shim_usage is not None

    # -- its end ------------------------------------------------------------------------------------------------

    @property
    def orphaned(self) -> bool:
        """Whether bubblewrap has gone, and its init is still to be waited for."""
        return self.monitor_status is not None and self._rusage is None and self.init_pid is not None

    @property
    def gone(self) -> bool:
        """Whether everything that can be reaped has been."""
        return self.monitor_status is not None and (self.init_pid is None or self._rusage is not None)

    @property
    def rusage(self) -> Rusage:
        """Of the whole tree, without the shim; nothing where nothing could be had."""
        return self._rusage or NO_RUSAGE

    def end_of_payload(self) -> tuple[int | None, int | None, bool]:
        """Code, signal, and whether that was inferred; once it has gone."""
        code = self.status.exit_code
        if self.payload_status is not None and code in (None, _as_a_code(self.payload_status)):
            return (*split_status(self.payload_status), False)
        if code is None:
            _, number = split_status(self.monitor_status or 0)
            return None, number or signal.SIGKILL, True
        if code in _INFERRED_SIGNALS:
            return None, code - 128, True
        return code, None, False

    @property
    def cut_short(self) -> bool:
        """Whether a signal has ended it, so that it had no time to say why."""
        if self.killed or os.WIFSIGNALED(self.monitor_status or 0):
            return True
        return self.shimmed and self.status.exit_code is not None and self.end_of_payload()[1] is not None

    def take_error(self) -> bytes:
        """What its child has said before it became bubblewrap: nothing at a good exec. Once."""
        fd, self.error_fd = self.error_fd, None
        if fd is None:
            return b""
        try:
            return os.read(fd, 4096)
        except BlockingIOError:
            return b""
        finally:
            os.close(fd)

    def read_diagnostics(self, spool_fd: int | None) -> bytes:
        """What bubblewrap has said; `spool_fd` holds what was taken out of the pipe."""
        # The pipe first: what the supervisor splices away in between is then in its spool.
        pending = b""
        if self.diagnostics_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                pending = os.read(self.diagnostics_fd, _DIAGNOSTICS_LIMIT_BYTES)
        kept = os.pread(spool_fd, _DIAGNOSTICS_LIMIT_BYTES, 0) if spool_fd is not None else b""
        return kept + pending

    # -- verbs --------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """kill(2) on the command's own process group; raises `ProcessLookupError` when the command has gone or not come yet.

        Neither a shim nor bubblewrap gets one in its stead: it would die of it, whatever the command does with that signal. Another sandbox
        is had for the command of a shim, which would never hear of it.
        """
        if self.payload_pid is None or self.payload_pidfd is None or not self.executed:
            raise ProcessLookupError(3, "the command has not started")
        signal.pidfd_send_signal(self.payload_pidfd, 0)
        group = os.getpgid(self.payload_pid)
        if group not in (self.init_pid, self.payload_pid):
            raise ProcessLookupError(3, "the command has left its process group")
        os.killpg(group, number)

    def kill(self) -> None:
        """End the whole tree, frozen or stopped as it may be."""
        if self.gone:
            return
        self.killed = True
        self._end_tree()

    def end_abandoned(self) -> None:
        """Where bubblewrap itself was killed, end what it leaves: an init that has not yet asked to die with it waits for it for ever."""
        if self.orphaned and os.WIFSIGNALED(self.monitor_status or 0):
            self._end_tree()

    def _end_tree(self) -> None:
        with contextlib.suppress(OSError):  # no descriptor may be left: what follows needs none
            if self.cgroup_path is not None and cgroup.kill(self.cgroup_path):
                cgroup.freeze(self.cgroup_path, frozen=False)
        # Both are our own unreaped children, so neither number can be another's yet.
        init_pid = self.init_pid if self._rusage is None else None
        monitor_pid = self.monitor_pid if self.monitor_status is None else None
        for pid in (init_pid, monitor_pid):
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of every descriptor. Idempotent."""
        self.status.close()
        for fd in (self.error_fd, self.payload_pidfd):
            if fd is not None:
                os.close(fd)
        self.error_fd = self.payload_pidfd = None
        self._close_shims()

    def _close_shims(self) -> None:
        """What only a shim needs: it has its command, or gets none."""
        if self.link is not None:
            self.link.close()
            self.link = None
        if self.shimmed and self.diagnostics_fd >= 0:
            os.close(self.diagnostics_fd)
            self.diagnostics_fd = -1

    def let_go(self) -> bool:
        """It has gone: close all, and remove its cgroup. False where the kernel has not let go of what was in that: try again later.

        An init that a killed bubblewrap never told of may still be there, and is ended.
        """
        self.close()
        if self.cgroup_path is None or cgroup.remove(self.cgroup_path):
            return True
        with contextlib.suppress(OSError):
            cgroup.kill(self.cgroup_path)
        return False


NO_RUSAGE = Rusage(
    user_s=0.0,
    system_s=0.0,
    max_rss_bytes=0,
    minor_faults=0,
    major_faults=0,
    voluntary_switches=0,
    involuntary_switches=0,
)


def split_status(status: int) -> tuple[int | None, int | None]:
    """A wait status as code or signal."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None


def _as_a_code(status: int) -> int:
    """A wait status as bubblewrap, and a shell, tell it."""
    code, number = split_status(status)
    return 128 + (number or 0) if code is None else code


def _nobody_asks() -> None:
    """It belongs to nobody any more."""
