"""A program whose forks fail when a test wants it: a seccomp filter hands every clone(2) of it, and of all it starts, to the test.

`python -m tests.root.failing_forks SOCKET ARGV…` installs the filter, sends its listener to SOCKET, and becomes ARGV. `Forks` at the
other end lets all of them go on, but for those of one process while `failing`: the kernel then answers that with the errno wanted; and
for those of all processes of one name while `hanging`, which get no answer at all.
A test that ends closes the listener, and whoever still forks there is told ENOSYS. Source: seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from coworkd.system import libc
from tests.root.folder_room import name_of

_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}[platform.machine()]
_FORKS = {"x86_64": (56, 57, 58, 435), "aarch64": (220, 435)}[platform.machine()]
"""clone, fork, vfork, clone3."""
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_NOTIF, _RESPONSE = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_RECV, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1
_WAIT_S = 30.0


class Forks:
    """The forks of one program that was started through us."""

    def __init__(self, path: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.settimeout(_WAIT_S)
        self._server.bind(os.fspath(path))
        self._server.listen()
        self.through = (sys.executable, "-m", "tests.root.failing_forks", os.fspath(path))
        self.failed = 0
        """How many were told to have failed."""
        self._pid, self._errno, self._disturbed = 0, 0, False
        self._hanging = ""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def failing(self, pid: int, number: int, *, disturbed: bool = False) -> Iterator[None]:
        """For the block, `pid` cannot fork, for `number`; `disturbed`: in the middle of the first try a child of its has ended."""
        self._errno, self._disturbed = number, disturbed
        self._pid = pid
        try:
            yield
        finally:
            self._pid = 0

    @contextlib.contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """Whoever is called `name` and forks in the block waits in the kernel until it is killed."""
        self._hanging = name
        try:
            yield
        finally:
            self._hanging = ""

    def close(self) -> None:
        """Returns when nobody is left who could fork: behind the end of the program."""
        self._thread.join(_WAIT_S)
        self._server.close()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            _, (listener,), _, _ = socket.recv_fds(connection, 1, 1)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:  # all who have the filter are gone
            self._answer(listener)
        os.close(listener)

    def _answer(self, listener: int) -> None:
        notice = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(listener, _RECV, notice)
            id, pid, *_ = _NOTIF.unpack(notice)
            if self._hanging and name_of(pid) == self._hanging:
                return
            fails = pid == self._pid
            if fails and self._disturbed:
                self._disturbed = False
                _disturb(listener, id, pid)
            self.failed += fails
            answer = _RESPONSE.pack(id, 0, -self._errno, 0) if fails else _RESPONSE.pack(id, 0, 0, _CONTINUE)
            fcntl.ioctl(listener, _SEND, answer)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):  # who asked was killed meanwhile
                raise


def _disturb(listener: int, id: int, pid: int) -> None:
    """Have a signal take `pid` out of its wait for our answer to `id`. Raises `OSError` (ENOENT) once it has."""
    os.kill(pid, signal.SIGCHLD)
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", id))
        time.sleep(0.001)


def _install() -> int:
    """The listener of the filter, which holds for this process and all it starts."""
    jumps = [(0x15, len(_FORKS) - index, 0, number) for index, number in enumerate(_FORKS)]
    lines = [(0x20, 0, 0, 0), *jumps, (0x06, 0, 0, _ALLOW), (0x06, 0, 0, _USER_NOTIF)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = struct.pack("@HP", len(lines), ctypes.addressof(code))
    return libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, program)


def main() -> None:
    path, *argv = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        listener = _install()
        socket.send_fds(connection, [b"."], [listener])
    os.close(listener)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
