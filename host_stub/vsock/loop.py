"""One epoll and its handlers, one thread: readiness of descriptors → calls.

Rules: a handler is called with its descriptor's mask and does a bounded amount of work. A descriptor is unregistered before it is closed;
one that is closed in this turn may have an event left in it, which is passed over or, if its number is another's by now, is a false
alarm to that one: handlers learn what is so from their system calls. Nothing a handler raises is caught.

Source: epoll(7).
"""

from __future__ import annotations

import select
from collections.abc import Callable

IN, OUT, HANG_UP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
EDGES = select.EPOLLET | select.EPOLLRDHUP
"""With it a readiness is told once, when it comes."""
NOTHING = 0
_EVENTS_A_TURN = 256


class Loop:
    """See above."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], object]] = {}

    def register(self, fd: int, mask: int, handler: Callable[[int], object]) -> None:
        """Call `handler` when `fd` is ready for `mask`. Raises OSError for what epoll does not watch."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Ask for another mask."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """No more calls for `fd`; one that is not registered is passed over."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, wait_s: float | None) -> int:
        """Wait at most `wait_s` (None: for ever), then call; how many descriptors were ready."""
        events = self._epoll.poll(-1 if wait_s is None else wait_s, _EVENTS_A_TURN)
        handlers = self._handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                handler(mask)
        return len(events)

    def close(self) -> None:
        """Let go of epoll and handlers."""
        self._handlers.clear()
        self._epoll.close()
