"""Making one sandbox: descriptors, limits, and the order to a standby.

The command's own descriptors are 0, 1 and 2. bubblewrap gets, and closes before the command runs: 3 its options, 4 and 5 the
two filters, 6 its status pipe, 7 its gate. A terminal's shim gets 8 (a socket for the master), 9 (a pipe that says how its
exec went) and 10 (its own source).

The gate is `--block-fd`: the command's exec waits for a byte in it. bubblewrap takes an end of file for a byte, so what it gets
is a pipe opened for reading and writing, which has no end as long as the reader lives: neither our death nor a mistake opens it.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from coworkd import sandbox
from coworkd.launcher import child
from coworkd.launcher.formats import Formats
from coworkd.launcher.process import Process
from coworkd.launcher.session import Session
from coworkd.launcher.standby import Standby
from coworkd.launcher.status import StatusReader
from coworkd.model.launch import Spawn
from coworkd.system import cgroup

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


class _Streams(NamedTuple):
    """`kept` by name, `given` to the child in order (the last three are 0, 1, 2), and where words come from."""

    kept: dict[str, int]
    given: list[int]
    diagnostics: int
    exec_fd: int | None


class Spawner:
    """Starts commands; holds what all of them share."""

    def __init__(self, bubblewrap: bytes, cgroup_root: str | None, missing_controllers: tuple[str, ...]) -> None:
        self._bubblewrap = bubblewrap
        self._cgroup_root = cgroup_root
        self._limited = len(missing_controllers) < 3
        self._limit_processes = "pids" in missing_controllers
        self._pid = os.getpid()
        self._formats = Formats(bubblewrap)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._shim = -1
        self._made = 0

    def session_cgroup(self, session: str) -> str | None:
        """Where the session's processes live; the prefix keeps names apart from the kernel's own files."""
        return None if self._cgroup_root is None else f"{self._cgroup_root}/s-{session}"

    def make_standby(self, session: Session) -> Standby:
        """A child waiting in `session`. Raises `OSError`."""
        self._made += 1
        above = self.session_cgroup(session.name)
        path = None if above is None else f"{above}/p-{self._made}"
        return Standby(
            uid=session.uid,
            gid=session.gid,
            mount_namespace=session.mount_namespace,
            network_namespace=session.network_namespace,
            launcher_pid=self._pid,
            formats=self._formats,
            cgroup_path=path,
        )

    def spawn(self, request: Spawn, session: Session, filters: tuple[int, int]) -> Process:
        """Order the session's standby to become `request`. Raises `OSError`, and nothing stays of the attempt."""
        waiting = session.take_standby()
        if waiting is not None:
            try:
                return self._order(request, waiting, filters)
            except (BrokenPipeError, ConnectionResetError):  # it was killed while it waited, and is not reaped yet
                pass
        return self._order(request, self.make_standby(session), filters)

    def _order(self, request: Spawn, standby: Standby, filters: tuple[int, int]) -> Process:
        opened: list[int] = []
        spare: list[int] = []
        try:
            process = self._spawn(request, standby, filters, opened, spare)
        except OSError:
            standby.dismiss()
            for fd in opened:
                os.close(fd)
            raise
        finally:
            for fd in spare:
                os.close(fd)
        return process

    def _spawn(
        self, request: Spawn, standby: Standby, filters: tuple[int, int], opened: list[int], spare: list[int]
    ) -> Process:
        options = b"\0".join((*request.bwrap_args, *_LAUNCHER_OPTIONS)) + b"\0"
        args = _own(spare, _memfd("bwrap-args", options))
        # bubblewrap reads a filter from the current offset, so every spawn needs a description of its own.
        fresh = [_own(spare, os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)) for fd in filters]
        status, status_write = _pipe(opened, spare)
        gate_read, gate = _pipe(spare, opened)
        gate_both = _own(spare, os.open(f"/proc/self/fd/{gate_read}", os.O_RDWR | os.O_CLOEXEC))
        streams = self._open_tty(opened, spare) if request.tty else self._open_streams(request, opened, spare)
        self._limit(request, standby)
        order = child.Order(
            executable=self._bubblewrap,
            argv=(b"bwrap", b"--args", b"%d" % child.FD_ARGS, b"--", *request.shim_args, *request.argv),
            command=request.argv[0],
            cwd=request.cwd,
            search_path=request.search_path,
            nofile=request.nofile,
            nproc=request.pids_max if self._limit_processes else None,
        )
        standby.send(order, [args, *fresh, status_write, gate_both, *streams.given])
        for fd in (status, streams.diagnostics, streams.exec_fd):
            if fd is not None:
                os.set_blocking(fd, False)
        return Process(
            request,
            monitor_pid=standby.pid,
            status=StatusReader(status),
            error_fd=standby.error_fd,
            gate_fd=gate,
            exec_fd=streams.exec_fd,
            diagnostics_fd=streams.diagnostics,
            fds=streams.kept,
            cgroup_path=standby.cgroup_path,
        )

    def _limit(self, request: Spawn, standby: Standby) -> None:
        if standby.cgroup_path is not None and self._limited:
            memory = request.memory_max_bytes
            cgroup.limit(standby.cgroup_path, memory_max_bytes=memory, pids_max=request.pids_max, cpu_max=None)

    def _open_streams(self, request: Spawn, opened: list[int], spare: list[int]) -> _Streams:
        stdout, stdout_write = _pipe(opened, spare)
        stderr, stderr_write = _pipe(opened, spare)
        kept = {
            "stdout": stdout,
            "stderr": stderr,
            "stdout_spool": _own(opened, _memfd("stdout")),
            "stderr_spool": _own(opened, _memfd("stderr")),
        }
        stdin = self._null
        if request.stdin:
            stdin, kept["stdin"] = os.pipe2(os.O_CLOEXEC)
            spare.append(stdin)
            opened.append(kept["stdin"])
        return _Streams(kept, [stdin, stdout_write, stderr_write], stderr, None)

    def _open_tty(self, opened: list[int], spare: list[int]) -> _Streams:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        kept = {"tty": _own(opened, ours.detach()), "tty_spool": _own(opened, _memfd("tty"))}
        link = _own(spare, theirs.detach())
        diagnostics, stderr = _pipe(opened, spare)
        exec_fd, exec_write = _pipe(opened, spare)
        given = [link, exec_write, self._shim_source(), self._null, self._null, stderr]
        return _Streams(kept, given, diagnostics, exec_fd)

    def _shim_source(self) -> int:
        if self._shim < 0:
            path = os.path.join(os.path.dirname(sandbox.__file__), "shim.py")
            with open(path, "rb") as file:
                self._shim = _memfd("coworkd-shim", file.read())
        return self._shim


def _pipe(read_into: list[int], write_into: list[int]) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    read_into.append(read)
    write_into.append(write)
    return read, write


def _own(into: list[int], fd: int) -> int:
    into.append(fd)
    return fd


def _memfd(name: str, content: bytes = b"") -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    if content:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd
