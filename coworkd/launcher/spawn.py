"""Making one sandbox: descriptors, fork, and what is kept of it.

The command's own descriptors are 0, 1 and 2. bubblewrap gets, and closes before the command runs: 3 its options, 4 and 5 the two
filters, 6 its status pipe. A terminal's shim gets 7 (a socket for the master), 8 (closed by a good exec) and 9 (its own source).
"""

from __future__ import annotations

import os
import socket

from coworkd import sandbox
from coworkd.launcher import child
from coworkd.launcher.process import Process
from coworkd.launcher.session import Session
from coworkd.launcher.status import StatusReader
from coworkd.model.launch import Spawn
from coworkd.system import cgroup, clone

_FILTER_OPTIONS = (
    b"--add-seccomp-fd",
    b"%d" % child.FD_BASE_FILTER,
    b"--add-seccomp-fd",
    b"%d" % child.FD_ADMIN_FILTER,
    b"--json-status-fd",
    b"%d" % child.FD_STATUS,
)


class Spawner:
    """Starts commands; holds what all of them share."""

    def __init__(self, bubblewrap: bytes, pids_limited: bool) -> None:
        self._bubblewrap = bubblewrap
        self._pids_limited = pids_limited
        self._pid = os.getpid()
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._shim: int | None = None

    def spawn(self, request: Spawn, session: Session, filters: tuple[int, int], cgroup_path: str | None) -> Process:
        """Fork the child of `request`. Raises `OSError` where a descriptor, cgroup or process cannot be had; nothing stays then."""
        opened: list[int] = []
        try:
            if cgroup_path is not None:
                cgroup.create(cgroup_path)
                cgroup.limit(
                    cgroup_path, memory_max_bytes=request.memory_max_bytes, pids_max=request.pids_max, cpu_max=None
                )
            return self._spawn(request, session, filters, cgroup_path, opened)
        except OSError:
            for fd in opened:
                os.close(fd)
            if cgroup_path is not None:
                cgroup.remove(cgroup_path)
            raise

    def _spawn(
        self, request: Spawn, session: Session, filters: tuple[int, int], cgroup_path: str | None, opened: list[int]
    ) -> Process:
        status, status_write = _pipe(opened)
        error, error_write = _pipe(opened)
        args = _memfd(opened, "bwrap-args", b"\0".join((*request.bwrap_args, *_FILTER_OPTIONS)) + b"\0")
        given = {child.FD_ARGS: args, child.FD_STATUS: status_write}
        kept, handed, diagnostics, exec_fd = self._streams(request, opened)
        given.update(handed)
        plan = child.ChildPlan(
            launcher_pid=self._pid,
            uid=request.uid,
            gid=request.gid,
            nofile=request.nofile,
            nproc=None if self._pids_limited else request.pids_max,
            mount_namespace=session.mount_namespace,
            network_namespace=session.network_namespace,
            filters=filters,
            fds=given,
            error_fd=error_write,
            executable=self._bubblewrap,
            argv=(b"bwrap", b"--args", b"%d" % child.FD_ARGS, b"--", *request.shim_args, *request.argv),
        )
        pid = _fork(cgroup_path)
        if pid == 0:
            child.run(plan)
        for fd in {args, status_write, error_write, *handed.values()} - {self._null, self._shim}:
            os.close(fd)
        for fd in (status, error, diagnostics, *([exec_fd] if exec_fd is not None else [])):
            os.set_blocking(fd, False)
        return Process(
            request,
            monitor_pid=pid,
            status=StatusReader(status),
            error_fd=error,
            exec_fd=exec_fd,
            diagnostics_fd=diagnostics,
            fds=kept,
            cgroup_path=cgroup_path,
        )

    def _streams(self, request: Spawn, opened: list[int]) -> tuple[dict[str, int], dict[int, int], int, int | None]:
        """(kept by name, handed to the child by number, where bubblewrap's words go, the shim's exec pipe)."""
        if request.tty:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            kept = {"tty": _own(opened, ours.detach()), "tty_spool": _memfd(opened, "tty")}
            diagnostics, stderr = _pipe(opened)
            exec_fd, exec_write = _pipe(opened)
            handed = {
                0: self._null,
                1: self._null,
                2: stderr,
                child.FD_TTY: _own(opened, theirs.detach()),
                child.FD_SHIM: exec_write,
                child.FD_SHIM_SOURCE: self._shim_source(),
            }
            return kept, handed, diagnostics, exec_fd
        stdout, stdout_write = _pipe(opened)
        stderr, stderr_write = _pipe(opened)
        kept = {"stdout": stdout, "stderr": stderr}
        kept.update(stdout_spool=_memfd(opened, "stdout"), stderr_spool=_memfd(opened, "stderr"))
        handed = {0: self._null, 1: stdout_write, 2: stderr_write}
        if request.stdin:
            handed[0], kept["stdin"] = _pipe(opened)
        return kept, handed, stderr, None

    def _shim_source(self) -> int:
        if self._shim is None:
            path = os.path.join(os.path.dirname(sandbox.__file__), "shim.py")
            with open(path, "rb") as file:
                self._shim = _memfd([], "coworkd-shim", file.read())
        return self._shim


def _fork(cgroup_path: str | None) -> int:
    if cgroup_path is None:
        return clone.fork_into(None)
    directory = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return clone.fork_into(directory)
    finally:
        os.close(directory)


def _pipe(opened: list[int]) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    opened += (read, write)
    return read, write


def _own(opened: list[int], fd: int) -> int:
    opened.append(fd)
    return fd


def _memfd(opened: list[int], name: str, content: bytes = b"") -> int:
    fd = _own(opened, os.memfd_create(name, os.MFD_CLOEXEC))
    if content:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd
