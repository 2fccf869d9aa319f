"""The terminal `coworkctl` runs in: its size, what a command is told of it, raw mode, and giving it back as it was, whatever happens.

Rules
- Raw means that every key goes to the command, Ctrl-C and Ctrl-Z too, and that its bytes are shown as they are.
- Stopped from outside (SIGTSTP), the terminal is given back first; continued, it is taken again, but only in the foreground: a job in
  the background that sets a terminal is stopped by the kernel (termios(3), SIGTTOU), and the terminal is its shell's then.
- Nothing waits for output that nobody takes: a terminal that hangs does not hang us.

Sources: termios(3), tcsetpgrp(3), signal(7), ioctl_tty(2).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import termios
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any

FALLBACK_ROWS, FALLBACK_COLS = 24, 80
SIZE_LIMIT = 0xFFFF
FALLBACK_TERM = "xterm-256color"
_INPUT_FLAGS = (
    termios.IGNBRK
    | termios.BRKINT
    | termios.PARMRK
    | termios.INPCK
    | termios.ISTRIP
    | termios.INLCR
    | termios.IGNCR
    | termios.ICRNL
    | termios.IXON
    | termios.IXANY
    | termios.IXOFF
)
_LOCAL_FLAGS = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}\Z")
_COMPATIBLE = re.compile(
    r"(alacritty|contour|foot|ghostty|iterm2?|kitty|konsole|mintty|st|vscode|vte|wezterm|xterm-.+)([-+.]|\Z)"
)
_KNOWN = frozenset(
    ("xterm-256color", "xterm-color", "xterm-mono", "xterm-r5", "xterm-r6", "xterm-vt220", "xterm-xfree86")
)
"""What a bare Debian describes of them; the others of `_COMPATIBLE` are like `FALLBACK_TERM`, and need a package to be known."""


def terminal_size(*fds: int) -> tuple[int, int]:
    """(rows, cols) of the first of `fds` that is a terminal with a size, else 24 x 80."""
    for fd in fds:
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if 0 < size.lines <= SIZE_LIMIT and 0 < size.columns <= SIZE_LIMIT:
            return size.lines, size.columns
    return FALLBACK_ROWS, FALLBACK_COLS


def terminal_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What a command on this terminal is told of it: TERM, COLORTERM, NO_COLOR; words that are none are left out.

    A TERM that a guest cannot know becomes the one it is like: full-screen programs refuse an unknown one.
    """
    told = {name: environment.get(name, "") for name in ("TERM", "COLORTERM", "NO_COLOR")}
    told = {name: value for name, value in told.items() if _WORD.match(value)}
    term = told.get("TERM", "")
    if _COMPATIBLE.match(term) and term not in _KNOWN:
        told["TERM"] = FALLBACK_TERM
    return told


class Terminal:
    """A context manager, from the main thread only: raw inside where `fd` is a terminal and that is `wanted`, as before afterwards.

    `stopped` is called before a stop, with the terminal given back; `resumed` after it, when it was taken again.
    """

    def __init__(
        self,
        fd: int,
        *,
        wanted: bool = True,
        stopped: Callable[[], None] = lambda: None,
        resumed: Callable[[], None] = lambda: None,
    ) -> None:
        self.raw = wanted and os.isatty(fd)
        self._fd = fd
        self._stopped = stopped
        self._resumed = resumed
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Terminal:
        if self.raw:
            self._before = termios.tcgetattr(self._fd)
            for number, handler in ((signal.SIGTSTP, self._stop), (signal.SIGCONT, self._continue)):
                self._handlers[number] = signal.signal(number, handler)
            self._set(self._compose_raw())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.raw:
            self._set(self._before)
            for number, previous in self._handlers.items():
                signal.signal(number, previous)

    def drop_typed(self) -> None:
        """What was typed for a command that is not there any more must not become the local shell's, the rest of a paste above all."""
        if self.raw and self._in_foreground():
            with contextlib.suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._set(self._before)
        self._stopped()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # To this thread, so that we are stopped when it returns; of a group that nobody could continue the kernel stops none.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._continue(number, None)

    def _continue(self, number: int, _: FrameType | None) -> None:
        if self._set(self._compose_raw()):
            self._resumed()

    def _compose_raw(self) -> list[Any]:
        made = [*self._before[:6], list(self._before[6])]
        made[0] &= ~_INPUT_FLAGS
        made[1] &= ~termios.OPOST
        made[2] = made[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        made[3] &= ~_LOCAL_FLAGS
        made[6][termios.VMIN], made[6][termios.VTIME] = 1, 0
        return made

    def _set(self, attributes: list[Any]) -> bool:
        """Whether they are set: not by a job in the background, and not on a terminal that is gone."""
        if not self._in_foreground():
            return False
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
        except termios.error:
            return False
        return True

    def _in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # no controlling terminal of ours: there is no job control over it
