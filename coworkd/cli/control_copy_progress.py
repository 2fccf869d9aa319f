"""How far a copy is, on one line of a terminal: bytes, of how many where that is known, and how fast.

Rules: the line is written over a few times a second and taken away at the end; without a terminal nothing is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

EVERY_S = 0.2
_CLEAR = "\r\x1b[K"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """Of one copy. `out` None shows nothing."""

    def __init__(self, out: TextIO | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._shown = False

    def through(self, pieces: Iterable[bytes], total: int | None) -> Iterator[bytes]:
        """The same pieces, counted as they pass."""
        began = due = self._clock()
        count = 0
        for piece in pieces:
            yield piece
            count += len(piece)
            now = self._clock()
            if self._out is not None and now >= due:
                due = now + EVERY_S
                self._show(count, total, now - began)

    def end(self) -> None:
        """Take the line away. Idempotent."""
        if self._shown and self._out is not None:
            self._shown = False
            self._out.write(_CLEAR)
            self._out.flush()

    def _show(self, count: int, total: int | None, took_s: float) -> None:
        assert self._out is not None
        of = f" of {readable(total)} ({100 * count // max(1, total)} %)" if total else ""
        rate = f"  {readable(int(count / took_s))}/s" if took_s > 0 else ""
        self._out.write(f"{_CLEAR}{readable(count)}{of}{rate}")
        self._out.flush()
        self._shown = True


def readable(count: int) -> str:
    """A number of bytes for people."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"
