"""Descriptors, and what is called when one of them can be read: the launcher's only wait.

Rules
- Whoever registers a descriptor owns it, and unregisters it before it is closed.
- A call may register and unregister others: what was unregistered is not called any more, even in the same round.

Source: epoll(7). An end (EPOLLHUP) is told whatever was asked for.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

_READ, _URGENT, _END, _ROOM = select.EPOLLIN, select.EPOLLPRI, 0, select.EPOLLOUT


class _Registered:
    """One descriptor's entry: not the same for a number that was given out anew."""

    __slots__ = ("call", "events")

    def __init__(self, events: int, call: Callable[[], None]) -> None:
        self.events = events
        self.call = call


class Readers:
    """One epoll. Owns nothing but that."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._registered: dict[int, _Registered] = {}

    def close(self) -> None:
        """Forget everything; the descriptors stay their owners'."""
        self._registered.clear()
        self._epoll.close()

    def register(self, fd: int, call: Callable[[], None]) -> None:
        """Have `call` called whenever there is something to read in `fd`, or its end."""
        self._register(fd, _READ, call)

    def register_end(self, fd: int, call: Callable[[], None]) -> None:
        """Have `call` called at the end of the pipe `fd` alone, whatever is in it."""
        self._register(fd, _END, call)

    def register_urgent(self, fd: int, call: Callable[[], None]) -> None:
        """Have `call` called when the kernel has news in `fd`, a file of its own (PSI, cgroup v2)."""
        self._register(fd, _URGENT, call)

    def _register(self, fd: int, events: int, call: Callable[[], None]) -> None:
        self._epoll.register(fd, events)
        self._registered[fd] = _Registered(events, call)

    def unregister(self, fd: int) -> None:
        """Forget it; one that is unknown is forgotten already."""
        if self._registered.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed before, against the rule: the kernel has forgotten it then
                self._epoll.unregister(fd)

    def drop(self, fd: int) -> None:
        """Forget it and close it."""
        self.unregister(fd)
        os.close(fd)

    def want_room(self, fd: int, *, wanted: bool) -> None:
        """Whether the call of `fd` is also made when it can be written to."""
        self._change(fd, _READ | _ROOM if wanted else _READ)

    def heed(self, fd: int, *, wanted: bool) -> None:
        """Whether the call of `fd` is made for what can be read there; for an error or its end it always is."""
        self._change(fd, _READ if wanted else _END)

    def _change(self, fd: int, events: int) -> None:
        known = self._registered[fd]
        if known.events != events:
            self._epoll.modify(fd, events)
            known.events = events

    def call_ready(self, timeout_s: float | None) -> None:
        """Wait once, at most that long, and call who is ready."""
        ready = [(fd, self._registered.get(fd)) for fd, _ in self._epoll.poll(timeout_s)]
        for fd, known in ready:
            if (
                known is not None and self._registered.get(fd) is known
            ):  # else closed by what came before it in this round
                known.call()
