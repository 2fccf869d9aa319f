"""Names to addresses, by getaddrinfo(3) in a few threads, so that no name holds up the loop.

Rules
- Threads are daemons and start when first needed, hence after the seccomp filter. They do nothing but look names up.
- A session has at most `_SHARE` look-ups running, one where `_SCARCE` run in all, and `_SESSION_LIMIT` waiting: a name that hangs costs
  its session. Sessions take turns. The same name asked for again while it is looked up waits for that answer.
- No search domains: what was decided on is what is asked for (`LOCALDOMAIN` is empty, resolv.conf(5)). /etc/hosts counts.
- A caller that cancels is not called; its look-up ends when it ends, for getaddrinfo cannot be told to.

Sources: getaddrinfo(3), resolv.conf(5), nsswitch.conf(5), eventfd(2).
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from coworkd.egressd.loop import IN, Loop, close_quietly

THREADS = 24
_SHARE = 3
_SCARCE = 16
_SESSION_LIMIT = 256
_TOTAL_LIMIT = 2048
_STACK_BYTES = 256 * 1024
_JOIN_S = 0.05
_ADDRESS_LIMIT = 32
"""Of one answer; who has more of them is not waited for anyway."""

Lookup = Callable[[str], list[str]]
"""Blocking, in a thread: a name's addresses in the order to try them. Raises `OSError`."""


class NotFound(Exception):
    """The name has no address, or nobody told it. The text is a sentence's end."""


OnAddresses = Callable[["list[str] | NotFound"], object]


def look_up(host: str) -> list[str]:
    """Ask the system's name service."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Waiter:
    """One caller who waits."""

    __slots__ = ("call",)

    def __init__(self, call: OnAddresses) -> None:
        self.call: OnAddresses | None = call

    def cancel(self) -> None:
        """Not to be called."""
        self.call = None


class _Job:
    """One look-up and all who wait for it."""

    __slots__ = ("host", "result", "session", "waiters")

    def __init__(self, session: str, host: str) -> None:
        self.session = session
        self.host = host
        self.waiters: list[Waiter] = []
        self.result: list[str] | NotFound = NotFound("was not looked up")


class Resolver:
    """Owns the threads and an eventfd in the loop. What hangs in a thread at `close` ends with the process."""

    def __init__(self, loop: Loop, lookup: Lookup = look_up) -> None:
        self._loop = loop
        self._lookup = lookup
        self._wakeup = -1
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[_Job] = deque()
        self._known: dict[tuple[str, str], _Job] = {}
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._running: dict[str, int] = {}
        self._running_total = 0

    def resolve(self, session: str, host: str, call: OnAddresses) -> Waiter:
        """Call later, from the loop, with at least one address or why there is none. Never calls from within."""
        waiter = Waiter(call)
        job = self._known.get((session, host))
        if job is not None:
            job.waiters.append(waiter)
            return waiter
        job = _Job(session, host)
        job.waiters.append(waiter)
        queued = self._waiting.get(session)
        if (queued is not None and len(queued) >= _SESSION_LIMIT) or len(self._known) >= _TOTAL_LIMIT:
            job.result = NotFound("is not looked up: too many other names wait")
            self._loop.soon(lambda: _tell(job))
            return waiter
        self._known[session, host] = job
        if queued is None:
            queued = self._waiting[session] = deque()
        queued.append(job)
        self._dispatch()
        return waiter

    def close(self) -> None:
        """End the threads that do not hang."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self._wakeup >= 0:
            self._loop.unregister(self._wakeup)
            if not any(thread.is_alive() for thread in self._threads):
                close_quietly(self._wakeup)

    # -- the loop's side ----------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give threads work, session by session, as long as one may have more."""
        passed = 0
        while self._waiting and passed < len(self._waiting) and self._running_total < THREADS:
            session = next(iter(self._waiting))
            queued = self._waiting[session]
            running = self._running.get(session, 0)
            if running >= (_SHARE if self._running_total < _SCARCE else 1):
                self._waiting.move_to_end(session)
                passed += 1
                continue
            if not self._have_thread():
                return
            job = queued.popleft()
            if queued:
                self._waiting.move_to_end(session)
            else:
                del self._waiting[session]
            self._running[session] = running + 1
            self._running_total += 1
            self._jobs.put(job)

    def _have_thread(self) -> bool:
        """Whether a thread is there for one more job; where none can be made those that are there serve."""
        if self._running_total < len(self._threads):
            return True
        try:
            if self._wakeup < 0:
                self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._loop.register(self._wakeup, IN, self._take_results)
                os.environ["LOCALDOMAIN"] = ""
                threading.stack_size(_STACK_BYTES)
            thread = threading.Thread(target=self._work, name="resolver", daemon=True)
            thread.start()
        except (OSError, RuntimeError):
            if not self._threads:  # nobody would ever come back to it
                self._loop.call_later(0.1, self._dispatch)
            return False
        self._threads.append(thread)
        return True

    def _take_results(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while self._done:
            job = self._done.popleft()
            del self._known[job.session, job.host]
            self._running_total -= 1
            left = self._running[job.session] - 1
            if left:
                self._running[job.session] = left
            else:
                del self._running[job.session]
            _tell(job)
        self._dispatch()

    # -- a thread's side ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                addresses = self._lookup(job.host)[:_ADDRESS_LIMIT]
                job.result = addresses or NotFound("has no address")
            except socket.gaierror as error:
                job.result = NotFound(_reason(error))
            except Exception as error:  # noqa: BLE001 - a thread that ended would be missing for ever, as would the answer
                job.result = NotFound(f"could not be looked up: {error}")
            self._done.append(job)
            with contextlib.suppress(OSError):
                os.eventfd_write(self._wakeup, 1)


def _tell(job: _Job) -> None:
    for waiter in job.waiters:
        call, waiter.call = waiter.call, None
        if call is not None:
            call(job.result)


def _reason(error: socket.gaierror) -> str:
    if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
        return "is not known to the name service"
    if error.errno == socket.EAI_AGAIN:
        return "could not be looked up: the name server does not answer"
    return f"could not be looked up: {error.strerror}"
