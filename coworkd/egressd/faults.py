"""Faults of ours within one connection: each gets an id, and the log its traceback under that id.

Bounded: whoever finds a way to make us fail could fill the log with it. `_BURST` tracebacks at once, then one in `_EACH_S`; what is not
written is counted, and told with the next.
"""

from __future__ import annotations

import secrets
import sys
import traceback
from collections.abc import Callable

_BURST = 20
_EACH_S = 10.0


class Faults:
    """Made once. `write` takes text for the log, standard error by default."""

    def __init__(self, clock: Callable[[], float], write: Callable[[str], object] | None = None) -> None:
        self._clock = clock
        self._write = write or _write
        self._room = float(_BURST)
        self._since = clock()
        self._unwritten = 0
        self.total = 0

    def note(self, error: BaseException) -> str:
        """Write it down; the id under which that was done."""
        self.total += 1
        incident = secrets.token_hex(4)
        now = self._clock()
        self._room = min(float(_BURST), self._room + (now - self._since) / _EACH_S)
        self._since = now
        if self._room < 1:
            self._unwritten += 1
            return incident
        self._room -= 1
        told = f" ({self._unwritten} before it are not written)" if self._unwritten else ""
        self._unwritten = 0
        words = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._write(f"coworkd-egress: a connection failed by a fault of ours, incident {incident}{told}\n{words}")
        return incident


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
