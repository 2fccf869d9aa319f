"""Descriptors, and what is called when one of them can be read: the launcher's only wait.

Rules
- Whoever registers a descriptor owns it, and unregisters it before it is closed.
- A call may register and unregister others: what was unregistered is not called any more, even in the same round.
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable


class Readers:
    """One epoll. Owns nothing but that."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()

    def close(self) -> None:
        """Forget everything; the descriptors stay their owners'."""
        self._selector.close()

    def register(self, fd: int, call: Callable[[], None]) -> None:
        """Have `call` called whenever there is something to read in `fd`, or its end."""
        self._selector.register(fd, selectors.EVENT_READ, call)

    def unregister(self, fd: int) -> None:
        """Forget it; one that is unknown is forgotten already."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def drop(self, fd: int) -> None:
        """Forget it and close it."""
        self.unregister(fd)
        os.close(fd)

    def want_room(self, fd: int, *, wanted: bool) -> None:
        """Whether the call of `fd` is also made when it can be written to."""
        key = self._selector.get_key(fd)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if key.events != events:
            self._selector.modify(fd, events, key.data)

    def call_ready(self, timeout_s: float | None) -> None:
        """Wait once, at most that long, and call who is ready."""
        for key, _ in self._selector.select(timeout_s):
            if self._selector.get_map().get(key.fd) is key:  # else closed by what came before it in this round
                key.data()
