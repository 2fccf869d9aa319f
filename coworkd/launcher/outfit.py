"""The descriptors of one sandbox: what the launcher keeps of it, and what it gives away.

Given to the child, in this order: the status pipe and the gate, for a terminal its socket, exec pipe and shim, then the
command's own three. Kept are the other ends, by the names of `launch.Spawned`.

The gate is `--block-fd`: the command's exec waits for a byte in it. bubblewrap takes an end of file for a byte, so what it gets
is a pipe opened for reading and writing, which has no end as long as the reader lives: neither our death nor a mistake opens it.
"""

from __future__ import annotations

import os
import socket


class Outfit:
    """Owns every descriptor of `kept` and `given` until `give_away` or `close`. Raises `OSError` on making, leaving nothing."""

    def __init__(self, null_fd: int, *, stdin: bool = False, shim_fd: int | None = None) -> None:
        """`shim_fd` is there for a terminal; it and `null_fd` stay the caller's, and are given along."""
        self.kept: dict[str, int] = {}
        self.given: list[int] = []
        self._lent = {null_fd, shim_fd}
        self._loose: list[int] = []
        self.exec_fd: int | None = None
        try:
            self.status = self._make_pipe()
            self._loose.append(self.status)
            gate_read, self.gate = os.pipe2(os.O_CLOEXEC)
            self._loose.append(self.gate)
            try:
                self.given.append(os.open(f"/proc/self/fd/{gate_read}", os.O_RDWR | os.O_CLOEXEC))
            finally:
                os.close(gate_read)
            if shim_fd is None:
                self._make_streams(null_fd, stdin=stdin)
            else:
                self._make_terminal(null_fd, shim_fd)
            for fd in (self.status, self.diagnostics, self.exec_fd):
                if fd is not None:
                    os.set_blocking(fd, False)
        except OSError:
            self.close()
            raise

    def add_stdin(self) -> None:
        """Give the command a pipe for its stdin instead of /dev/null. Raises `OSError`."""
        read, self.kept["stdin"] = os.pipe2(os.O_CLOEXEC)
        self.given[-3] = read

    def give_away(self) -> None:
        """The child has its copies: close ours of what was given."""
        for fd in set(self.given) - self._lent:
            os.close(fd)
        self.given.clear()

    def close(self) -> None:
        """Let go of everything, for a sandbox that never was."""
        self.give_away()
        for fd in (*self.kept.values(), *self._loose):
            os.close(fd)
        self.kept.clear()
        self._loose.clear()

    def _make_streams(self, null_fd: int, *, stdin: bool) -> None:
        self.given.append(null_fd)
        self.kept["stdout"] = self._make_pipe()
        self.kept["stderr"] = self.diagnostics = self._make_pipe()
        self.kept["stdout_spool"] = os.memfd_create("stdout", os.MFD_CLOEXEC)
        self.kept["stderr_spool"] = os.memfd_create("stderr", os.MFD_CLOEXEC)
        if stdin:
            self.add_stdin()

    def _make_terminal(self, null_fd: int, shim_fd: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.kept["tty"] = ours.detach()
        self.given.append(theirs.detach())
        self.kept["tty_spool"] = os.memfd_create("tty", os.MFD_CLOEXEC)
        self.exec_fd = self._make_pipe()
        self._loose.append(self.exec_fd)
        self.given += (shim_fd, null_fd, null_fd)
        self.diagnostics = self._make_pipe()
        self._loose.append(self.diagnostics)

    def _make_pipe(self) -> int:
        """A pipe whose write end is given; returns the read end."""
        read, write = os.pipe2(os.O_CLOEXEC)
        self.given.append(write)
        return read
