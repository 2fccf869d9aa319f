"""The terminal `coworkctl` runs in: its size, raw mode, and giving it back as it was, whatever happens."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections.abc import Iterator

FALLBACK_ROWS, FALLBACK_COLS = 24, 80


def terminal_size(*fds: int) -> tuple[int, int]:
    """(rows, cols) of the first of `fds` that is a terminal with a size, else 24 x 80."""
    for fd in fds:
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines > 0 and size.columns > 0:
            return size.lines, size.columns
    return FALLBACK_ROWS, FALLBACK_COLS


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[bool]:
    """Every key goes to the command, Ctrl-C too; yields whether `fd` is a terminal. Restored on the way out, always."""
    if not os.isatty(fd):
        yield False
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
