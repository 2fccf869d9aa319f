"""What the guest says on its serial console, as it lies in a file that the back end appends to.

Rules
- A guest may write without end, so the file is bounded: past `LIMIT_BYTES` its end is kept as `NAME.1` and it begins anew. The back end
  has it open for appending (O_APPEND), so it goes on at the new end. A few lines written meanwhile are lost.
- Lines are shown without what drives a terminal: colours, cursor, and bytes that are no text.

Blocking, with small reads.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from host_stub.bundle_files import write_whole
from host_stub.logs import escape

LIMIT_BYTES = 16 << 20
KEPT_BYTES = 4 << 20
TAIL_BYTES = 16 << 10
LINE_CHARACTERS = 300
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|\r")


class SerialLog:
    """The log of one machine; `mark` where a life begins, so that `tail` tells of it alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def mark(self) -> None:
        """What is there by now belongs to earlier lives."""
        self._start = self._size()

    def tail(self, count: int) -> list[str]:
        """The last `count` lines of this life that are not empty."""
        size = self._size()
        start = max(self._start if self._start <= size else 0, size - TAIL_BYTES)
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                text = file.read(TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return []
        return lines_of(text)[-count:]

    def bound(self) -> bool:
        """Keep the end aside and begin anew where it is too long; whether that was so. A full disk loses the end, not the bound."""
        size = self._size()
        if size <= LIMIT_BYTES:
            return False
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(size - KEPT_BYTES)
            write_whole(self.path.with_name(f"{self.path.name}.1"), [file.read(KEPT_BYTES)])
        with contextlib.suppress(OSError):
            os.truncate(self.path, 0)
        return True

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def lines_of(text: str) -> list[str]:
    """The lines of a console that say anything, fit to be shown."""
    shown = (escape(line.strip(), LINE_CHARACTERS) for line in _TERMINAL.sub("", text).split("\n"))
    return [line for line in shown if line]
