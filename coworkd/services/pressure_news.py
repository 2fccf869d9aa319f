"""What the kernel tells of pressure (`system.pressure`), waited for in a thread.

Rules
- Whoever asks a trigger for its news takes it. An epoll that another one waits for is asked by both: the outer takes the news, and the
  inner then has none. So trio's loop can wait neither for these files nor for an epoll of them, and a thread of their own does.
- The thread has ended before anything is closed.

Source: psi_trigger_poll() in linux kernel/sched/psi.c, epoll(7).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress

import trio


class PressureNews:
    """Files with a trigger each. `serve` tells of them; `add` and `remove` may be called meanwhile, `close` after it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._end_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._end_fd, select.EPOLLIN)
        self._limiter = trio.CapacityLimiter(1)

    def add(self, fd: int) -> None:
        """From here on, each piece of news once; `fd` stays the caller's, who removes it before it is closed."""
        self._epoll.register(fd, select.EPOLLPRI | select.EPOLLET)

    def remove(self, fd: int) -> None:
        with suppress(OSError):
            self._epoll.unregister(fd)

    async def serve(self, take: Callable[[int], None]) -> None:
        """Give every file that has news to `take`, one whose cgroup has gone among them. Never returns.

        A file may have been removed since, and its number be another's.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake_at_the_end)
            while True:
                for fd in await trio.to_thread.run_sync(self._wait, limiter=self._limiter):
                    take(fd)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._end_fd)

    def _wait(self) -> list[int]:
        return [fd for fd, _ in self._epoll.poll() if fd != self._end_fd]

    async def _wake_at_the_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            os.eventfd_write(self._end_fd, 1)
