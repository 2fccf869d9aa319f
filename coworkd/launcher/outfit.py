"""The descriptors of one command, and those of the bubblewrap around it: what the launcher keeps, and what it gives away.

Given are the command's own three, in their order; for a terminal the socket for its master. Kept are the other ends, by the names of
`launch.Spawned`. Where a shim executes the command it also gets the pipe that says how that went. The gate before the command is of
neither: it belongs to whoever the outfit is made for.
"""

from __future__ import annotations

import os
import socket

from coworkd.launcher.gate import Gate


class _Owned:
    """Descriptors of which some are given away."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self._lent: set[int] = set()

    def give_away(self) -> None:
        """The other side has its copies: close ours of what was given. Idempotent."""
        for fd in set(self.given) - self._lent:
            os.close(fd)
        self.given.clear()

    def make_pipe(self, *, blocking: bool = False) -> int:
        """A pipe whose write end is given; returns the read end."""
        read, write = os.pipe2(os.O_CLOEXEC)
        self.given.append(write)
        os.set_blocking(read, blocking)
        return read


class Outfit(_Owned):
    """Of a command. Owns every descriptor of it until `give_away` or `close`. Raises `OSError` on making, leaving nothing."""

    def __init__(self, null_fd: int, *, terminal: bool = False) -> None:
        """`null_fd` stays the caller's."""
        super().__init__()
        self.kept: dict[str, int] = {}
        self.exec_fd = -1
        self._exec_write = -1
        self._lent = {null_fd}
        self.gate = Gate()
        try:
            if terminal:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                self.kept["tty"] = ours.detach()
                self.given.append(theirs.detach())
                self.kept["tty_spool"] = os.memfd_create("tty", os.MFD_CLOEXEC)
            else:
                self._make_streams(null_fd)
        except OSError:
            self.close()
            raise

    def add_stdin(self) -> None:
        """Give the command a pipe for its stdin instead of /dev/null, with what counts what goes into it. Raises `OSError`."""
        self.given[0], self.kept["stdin"] = os.pipe2(os.O_CLOEXEC)
        self.kept["stdin_tally"] = os.memfd_create("stdin-tally", os.MFD_CLOEXEC)

    def add_exec(self) -> None:
        """Make the pipe on which a shim says how the exec went. Raises `OSError`."""
        self.exec_fd = self.make_pipe()
        self._exec_write = self.given.pop()

    @property
    def handed(self) -> list[int]:
        """What a shim gets: that pipe, the gate, and what is the command's."""
        return [self._exec_write, self.gate.read, *self.given]

    def give_exec(self) -> None:
        """The shim has its copy of the pipe: its end is the shim's alone. Idempotent."""
        if self._exec_write >= 0:
            os.close(self._exec_write)
            self._exec_write = -1

    def give_away(self) -> None:
        super().give_away()
        self.give_exec()

    def close(self) -> None:
        """Let go of everything, for a command that never was."""
        self.give_away()
        self.gate.close()
        for fd in (*self.kept.values(), self.exec_fd):
            if fd >= 0:
                os.close(fd)
        self.kept.clear()
        self.exec_fd = -1

    def _make_streams(self, null_fd: int) -> None:
        self.given.append(null_fd)
        self.kept["stdout"] = self.make_pipe(blocking=True)
        self.kept["stderr"] = self.make_pipe()
        self.kept["stdout_spool"] = os.memfd_create("stdout", os.MFD_CLOEXEC)
        self.kept["stderr_spool"] = os.memfd_create("stderr", os.MFD_CLOEXEC)


class Plumbing(_Owned):
    """Of a bubblewrap. Owns every descriptor of it until `give_away` or `close`. Raises `OSError` on making, leaving nothing.

    Given are the status pipe and, for a shim, its link and its source, and 0, 1 and 2.
    """

    def __init__(self, null_fd: int, *, shim_fd: int | None = None) -> None:
        """Both stay the caller's, and are given along where there is a shim."""
        super().__init__()
        self._lent = {null_fd, -1 if shim_fd is None else shim_fd}
        self.status = self.diagnostics = -1
        self.link: socket.socket | None = None
        try:
            self.status = self.make_pipe()
            if shim_fd is not None:
                self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self.given += (theirs.detach(), shim_fd, null_fd, null_fd)
                self.diagnostics = self.make_pipe()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything, for a bubblewrap that never was."""
        self.give_away()
        if self.link is not None:
            self.link.close()
        for fd in (self.status, self.diagnostics):
            if fd >= 0:
                os.close(fd)
