"""A terminal of a test's own with a program on it, as a person has it: keys in, what is shown, its settings, its size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

REPO = Path(__file__).resolve().parents[2]
WAIT_S = 60.0


class Reachable(Protocol):
    """A coworkd, or a way to one."""

    uri: str


class LocalTerminal:
    """`child` has the other side as its controlling terminal; `shown` is all it has shown."""

    def __init__(self, child: subprocess.Popen[bytes], master: int, slave: int, before: list[Any]) -> None:
        self.child = child
        self.shown = b""
        self.before = before
        self._master = master
        self._slave = slave

    def type(self, keys: bytes) -> None:
        """Type, reading what is shown meanwhile: both sides have little room."""
        view = memoryview(keys)
        deadline = time.monotonic() + 3 * WAIT_S
        while view:
            assert time.monotonic() < deadline, f"{len(view)} keys were not taken"
            reading, writing, _ = select.select([self._master], [self._master], [], 1)
            if reading:
                self._take()
            if writing:
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self._master, view[:1024]) :]

    def wait_for(self, *texts: bytes, timeout_s: float = WAIT_S) -> bytes:
        """Read until each of `texts` was shown, one behind the other, since the last call; what was shown."""
        begin = position = 0
        deadline = time.monotonic() + timeout_s
        for text in texts:
            while (found := self.shown.find(text, position)) < 0:
                assert time.monotonic() < deadline, f"{text!r} was not shown, only {self.shown[-2000:]!r}"
                self._look(0.1)
            position = found + len(text)
        seen, self.shown = self.shown[begin:position], self.shown[position:]
        return seen

    def read_bytes(self, count: int) -> bytes:
        """The next `count` bytes that are shown."""
        pieces, size = [self.shown], len(self.shown)
        deadline = time.monotonic() + 3 * WAIT_S
        while size < count:
            assert time.monotonic() < deadline, f"only {size} of {count} bytes were shown"
            if select.select([self._master], [], [], 0.1)[0]:
                pieces.append(os.read(self._master, 1 << 16))
                size += len(pieces[-1])
        data = b"".join(pieces)
        self.shown = data[count:]
        return data[:count]

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    @property
    def is_raw(self) -> bool:
        return not self.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_raw(self, raw: bool = True) -> None:
        deadline = time.monotonic() + WAIT_S
        while self.is_raw is not raw:
            assert time.monotonic() < deadline, f"raw is {self.is_raw}; shown: {self.shown[-2000:]!r}"
            self._look(0.02)

    def end(self, timeout_s: float = WAIT_S) -> int:
        """The status of the child, once it has ended; all it said is in `shown`."""
        deadline = time.monotonic() + timeout_s
        while self.child.poll() is None:
            assert time.monotonic() < deadline, f"it has not ended: {self.shown[-2000:]!r}"
            self._look(0.05)
        self._look(0)
        return self.child.returncode

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed."""
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def close(self) -> None:
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)

    def _look(self, timeout_s: float) -> None:
        if self._master < 0:
            time.sleep(timeout_s)
            return
        while select.select([self._master], [], [], timeout_s)[0]:
            self._take()
            timeout_s = 0

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.shown += os.read(self._master, 1 << 16)


@contextlib.contextmanager
def on_terminal(
    *argv: str, rows: int = 24, cols: int = 80, env: Mapping[str, str] | None = None, stdout: int | None = None
) -> Iterator[LocalTerminal]:
    """`argv` on a terminal of its own, which is its controlling one; with its output elsewhere, if that is said."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))
    before = termios.tcgetattr(slave)
    child = subprocess.Popen(
        ["setsid", "--ctty", *argv],
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        cwd=REPO,
        env={**os.environ, **(env or {})},
    )
    terminal = LocalTerminal(child, master, slave, before)
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def ctl_on_terminal(daemon: Reachable, *words: str, **options: Any) -> Iterator[LocalTerminal]:
    """`coworkctl` with these words on a terminal of its own."""
    with on_terminal(*ctl_argv(daemon, *words), **options) as terminal:
        yield terminal


def ctl_argv(daemon: Reachable, *words: str) -> list[str]:
    return [sys.executable, "-m", "coworkd.cli.control", "--to", daemon.uri, *words]
