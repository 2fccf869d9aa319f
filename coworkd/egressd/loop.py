"""The loop of coworkd-egress: one epoll, level-triggered, one thread.

Rules
- A handler is called with the mask of its descriptor; it does a bounded amount of work and returns. What is left to do makes the
  descriptor ready again, or is put off with `soon`.
- A mask is a hint. A descriptor that was closed in this turn may be another one by the time its event is looked at, so handlers learn
  what is so from their system calls, never from the mask alone.
- Descriptors that nobody else holds a copy of are closed without a word to the kernel's epoll; `forget` takes them from the table. Those
  with copies (listeners) must be `unregister`ed.
- Nothing a handler raises is caught here: a connection's faults are caught by its `Fence`, all others end the program.

Sources: epoll(7), "will closing a file descriptor cause it to be removed".
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
Handler = Callable[[int], object]

IN = select.EPOLLIN
OUT = select.EPOLLOUT
ERROR = select.EPOLLERR
"""Told in any case; as a mask by itself: a descriptor that is watched for errors (and hang-ups) alone."""
ONCE = select.EPOLLONESHOT
"""With it a descriptor is asked for one event, then stays registered and silent, errors and all, until it is modified."""
_EVENTS_A_TURN = 256


class Timer:
    """A call that waits for its time."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Not to be called any more; lets go of all that the call held."""
        self._call = None

    def fire(self) -> None:
        """Call, unless cancelled."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Turning(Protocol):
    """What the parts of a connection need of a loop: see `Loop`, and `fence.Fence` for what most of them have."""

    @property
    def now(self) -> float: ...

    @property
    def turns(self) -> int: ...

    def register(self, fd: int, mask: int, handler: Handler) -> None: ...

    def modify(self, fd: int, mask: int) -> None: ...

    def handle(self, fd: int, handler: Handler) -> None: ...

    def unregister(self, fd: int) -> None: ...

    def forget(self, fd: int) -> None: ...

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Timer: ...

    def guard(self, call: Callable[_P, _T]) -> Callable[_P, _T | None]:
        """What others are to call instead of `call`."""


class Loop:
    """See the rules above. `now` is the time of this turn, by `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: deque[Callable[[], object]] = deque()
        self._last: list[Callable[[], object]] = []
        self._stopped = False
        self.now = clock()
        self.turns = 0
        """How many there have been."""

    # -- descriptors --------------------------------------------------------------------------------------------

    def register(self, fd: int, mask: int, handler: Handler) -> None:
        """Have `handler` called when `fd` is ready for `mask`; errors and hang-ups are always told."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Ask for another mask."""
        self._epoll.modify(fd, mask)

    def handle(self, fd: int, handler: Handler) -> None:
        """Another handler for a registered descriptor."""
        self._handlers[fd] = handler

    def unregister(self, fd: int) -> None:
        """No more events of `fd`, which stays open; one that is not registered is passed over."""
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(fd)

    def unregister_where(self, is_meant: Callable[[Handler], bool]) -> None:
        """No more events of all whose handler is meant. Looks at every one."""
        for fd in [fd for fd, handler in self._handlers.items() if is_meant(handler)]:
            self.unregister(fd)

    def forget(self, fd: int) -> None:
        """No more events of `fd`, which is closed right away and has no copies."""
        self._handlers.pop(fd, None)

    # -- times --------------------------------------------------------------------------------------------------

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call once `now` has reached `when`."""
        timer = Timer(call)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Timer:
        """Call `delay_s` after this turn's time."""
        return self.call_at(self.now + delay_s, call)

    def soon(self, call: Callable[[], object]) -> None:
        """Call in the next turn, after the events that are there by then."""
        self._soon.append(call)

    def guard(self, call: Callable[_P, _T]) -> Callable[_P, _T | None]:
        """`call` itself: nothing is caught here."""
        return call

    def at_end_of_turn(self, call: Callable[[], object]) -> None:
        """Call at the end of every turn, before the loop may wait."""
        self._last.append(call)

    # -- turns --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until `stop`."""
        while not self._stopped:
            self.turn()

    def stop(self) -> None:
        """End `run` after this turn."""
        self._stopped = True

    def turn(self, wait_s: float | None = None) -> int:
        """Wait for what comes first, at most `wait_s`, and handle it; how many descriptors were ready."""
        handlers = self._handlers
        events = self._epoll.poll(self._wait_s(wait_s), _EVENTS_A_TURN)
        self.now = self._clock()
        self.turns += 1
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                handler(mask)
        for _ in range(len(self._soon)):
            self._soon.popleft()()
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            heapq.heappop(timers)[2].fire()
        for call in self._last:
            call()
        return len(events)

    def close(self) -> None:
        """Let go of the epoll descriptor and of every handler."""
        self._handlers.clear()
        self._timers.clear()
        self._soon.clear()
        self._last.clear()
        self._epoll.close()

    def _wait_s(self, most_s: float | None) -> float:
        if self._soon:
            return 0.0
        wait_s = -1.0 if most_s is None else most_s
        if self._timers:
            due_s = max(0.0, self._timers[0][0] - self._clock())
            wait_s = due_s if wait_s < 0 else min(wait_s, due_s)
        return wait_s


def close_quietly(fd: int) -> None:
    """close(2): the descriptor is gone whatever it answers."""
    with contextlib.suppress(OSError):
        os.close(fd)
