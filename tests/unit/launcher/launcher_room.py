"""What the tests of the launcher share: words to ask with, and processes that are made of pipes."""

from __future__ import annotations

import os
from resource import RUSAGE_SELF, getrusage, struct_rusage

from msgspec import structs

from coworkd.launcher.process import Process
from coworkd.launcher.status import StatusReader
from coworkd.model.launch import OpenSession, Spawn
from coworkd.model.limits import CgroupLimits, Rlimits

USAGE: struct_rusage = getrusage(RUSAGE_SELF)
MONITOR, INIT, PAYLOAD = 101, 102, 103

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
    tty=False,
    rlimits=Rlimits(nofile=64, nproc=10),
    limits=CgroupLimits(memory_max_bytes=1 << 20, pids_max=10),
)
LIMITS = CgroupLimits(memory_max_bytes=1 << 20, pids_max=10, cpu_max=1.0)
OPEN = OpenSession(id=3, session="bob", uid=1001, gid=1001, tree=(), limits=LIMITS)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Sandbox:
    """A process of the launcher whose other ends are the test's: `status`, `error`, `stderr`, and with a tty `exec`."""

    def __init__(self, *, tty: bool = False, cgroup: str | None = None) -> None:
        status, self.status = os.pipe2(os.O_NONBLOCK)
        error, self.error = os.pipe2(os.O_NONBLOCK)
        stderr, self.stderr = os.pipe2(os.O_NONBLOCK)
        self.spool = os.memfd_create("stderr")
        self.gate, gate = os.pipe2(os.O_NONBLOCK)
        exec_fd = None
        self.exec = -1
        if tty:
            exec_fd, self.exec = os.pipe2(os.O_NONBLOCK)
        self.process = Process(
            structs.replace(SPAWN, tty=tty),
            monitor_pid=MONITOR,
            status=StatusReader(status),
            error_fd=error,
            gate_fd=gate,
            exec_fd=exec_fd,
            diagnostics_fd=stderr,
            fds={"stderr": stderr, "stderr_spool": self.spool},
            cgroup_path=cgroup,
        )

    def say(self, line: str) -> None:
        os.write(self.status, line.encode() + b"\n")

    def run(self) -> None:
        """The command runs."""
        self.process.learn_init(INIT)
        self.process.payload_pid = PAYLOAD
        self.process.learn_exec()

    def reap(self, monitor_status: int = 0) -> None:
        self.process.learn_reaped(MONITOR, monitor_status, USAGE)
        if self.process.init_pid is not None:
            self.process.learn_reaped(INIT, 0, USAGE)

    def close(self) -> None:
        self.process.close()
        for fd in (self.status, self.error, self.stderr, self.gate, self.exec):
            if fd >= 0:
                os.close(fd)
