"""What the tests of the launcher share: words to ask with, and processes that are made of pipes."""

from __future__ import annotations

import os
import socket
from resource import RUSAGE_SELF, getrusage, struct_rusage

from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.gate import Gate
from coworkd.launcher.handover import Handover
from coworkd.launcher.outfit import Outfit
from coworkd.launcher.process import Process
from coworkd.launcher.status import StatusReader
from coworkd.model.launch import GO, OpenSession, Spawn
from coworkd.model.limits import CgroupLimits, Rlimits

USAGE: struct_rusage = getrusage(RUSAGE_SELF)
MONITOR, INIT, PAYLOAD = 101, 102, 103
LIMIT_S = 20.0

SPAWN = Spawn(
    id=7,
    process="p1",
    session="bob",
    uid=1001,
    gid=1001,
    argv=(b"cat", b"-"),
    bwrap_args=(b"--unshare-user",),
    filters=("b" * 64, "a" * 64),
    stdin=True,
    tty=None,
    rlimits=Rlimits(nofile=64, nproc=10),
    limits=CgroupLimits(memory_max_bytes=1 << 20, pids_max=10),
)
LIMITS = CgroupLimits(memory_max_bytes=1 << 20, pids_max=10, cpu_max=1.0)
OPEN = OpenSession(id=3, session="bob", uid=1001, gid=1001, tree=(), limits=LIMITS)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Sandbox:
    """A process of the launcher whose other ends are the test's: `status`, `error`, `stderr`, `gate`, and with a shim `link` and `exec`."""

    def __init__(self, *, shim: bool = False, cgroup: str | None = None, spawn: Spawn = SPAWN) -> None:
        status, self.status = os.pipe2(os.O_NONBLOCK)
        error, self.error = os.pipe2(os.O_NONBLOCK)
        stderr, self.stderr = os.pipe2(os.O_NONBLOCK)
        self.spool = os.memfd_create("stderr")
        fds = {"stderr_spool": self.spool} if shim else {"stderr": stderr, "stderr_spool": self.spool}
        self.exec = -1
        self.link: socket.socket | None = None
        link, exec_fd, handover = None, None, None
        if shim:
            link, self.link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.link.settimeout(LIMIT_S)
            outfit = Outfit(self.spool, terminal=True)
            outfit.add_exec()
            self.exec = os.dup(outfit.handed[0])
            gate = outfit.gate
            handover = Handover(SPAWN, outfit, native=b"")
            fds |= outfit.kept
            exec_fd = outfit.exec_fd
        else:
            gate = Gate()
        self.gate = os.dup(gate.write)
        self.bwrap = Bwrap(
            monitor_pid=MONITOR,
            status=StatusReader(status),
            error_fd=error,
            diagnostics_fd=stderr,
            link=link,
            cgroup_path=cgroup,
        )
        self.process = Process(spawn, self.bwrap, fds=fds, gate=gate, exec_fd=exec_fd, handover=handover)
        gate.give()

    def say(self, line: str) -> None:
        os.write(self.status, line.encode() + b"\n")

    def open_gate(self) -> None:
        os.write(self.gate, GO)

    def run(self) -> None:
        """The command runs."""
        self.bwrap.learn_init(INIT)
        self.bwrap.payload_pid = PAYLOAD
        self.bwrap.learn_exec()

    def run_shim(self, said: bytes) -> None:
        """The shim has become the command, with these words before it."""
        self.bwrap.learn_init(INIT)
        self.bwrap.payload_pid = PAYLOAD
        self.process.shim_said = said
        self.process.learn_shim()

    def reap(self, monitor_status: int = 0) -> None:
        self.bwrap.learn_reaped(MONITOR, monitor_status, USAGE)
        if self.bwrap.init_pid is not None:
            self.bwrap.learn_reaped(INIT, 0, USAGE)

    def close(self) -> None:
        self.process.close()
        if self.link is not None:
            self.link.close()
        for fd in (self.status, self.error, self.stderr, self.gate, self.exec):
            if fd >= 0:
                os.close(fd)
