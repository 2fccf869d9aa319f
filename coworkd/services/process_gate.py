"""The gate before a command: it opens once, when the record of its start is durable and its sandbox has what it needs, whichever is last.

The disk's own thread opens it where the disk was the last, so that a start waits for no turn of the loop behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Two come, each from a thread of its own; the second opens it."""

    __slots__ = ("_awaited", "_lock", "_open", "opened")

    def __init__(self, open_it: Callable[[], bool]) -> None:
        """`open_it` is called once, from either thread, must not block, and says whether it could."""
        self._open = open_it
        self._lock = threading.Lock()
        self._awaited = 2
        self.opened = False
        """Final once both have come."""

    def come(self) -> None:
        """One of the two is there. Not to be called twice by one."""
        with self._lock:
            self._awaited -= 1
            last = self._awaited == 0
        if last:
            self.opened = self._open()
