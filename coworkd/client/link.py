"""The link of a blocking client, as its threads share it: one link, or several after one another.

Rules
- There is no thread of its own: whoever waits for something reads the link for everybody, one thread at a time, and makes it again
  where it is kept and was lost (`renewal` says when).
- Nothing is read while nobody waits; a subscriber or an attached process that is not read for long slows this link only.
- Whoever uses `core` holds `lock`, and nobody holds it while reading, sending, pausing or dialling. What was composed for one link
  is never sent on the next.
- An exception raised by a signal handler while a thread reads breaks the link; so does any that interrupts a send.

It knows no verbs and no handles (`sync`), and not what a lost link means for what was said on it (`core`).
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from coworkd.client.core import LOST_REMEDY, Core
from coworkd.client.dial import Stream
from coworkd.client.pending import Pending, read_answer
from coworkd.client.renewal import DIAL_S, SILENCE_S, Renewal, Silence
from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import CoworkError, DeadlineExceeded, Unavailable

RECEIVE_BYTES = 256 * 1024


class Link:
    """The link of one client. Use `core` with `lock` held; `close` ends it."""

    hello: HelloAnswer

    def __init__(self, stream: Stream, first: bytes = b"") -> None:
        """Take over a connected stream, and what came on it already; call `greet` next."""
        self.core = Core()
        if first:
            self.core.receive(first)
        self.lock = threading.Lock()
        self._stream = stream
        self._waiting = threading.Condition(self.lock)
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._poll = self._watch()
        self._closed = False
        self._sending = threading.Lock()
        self._reading = False
        """Some thread reads the link, or makes it again."""
        self._silence = Silence()
        self._renewal = Renewal(0)
        self._redial: Callable[[float], Link] | None = None
        self.changed: Callable[[CoworkError | None], None] = lambda error: None
        """Told why a link was lost that is made again, and None when there is one; with `lock` held."""

    def greet(self, client_name: str, token: str | None, timeout_s: float) -> HelloAnswer:
        """Say hello, once. Errors as those of `finish`, and of a guest that refuses."""
        with self.lock:
            pending, frame = self.core.hello(client_name, token)
        self.hello = read_answer("hello", self.finish(pending, frame, timeout_s), HelloAnswer)
        return self.hello

    def keep(self, redial: Callable[[float], Link], limit_s: float) -> None:
        """From now on it is made again where it is lost: `redial` gives another, greeted and unused. See `sync.Client.keep`."""
        self._redial, self._renewal, self.core.lasting = redial, Renewal(limit_s), True

    def close(self) -> None:
        """End it; whoever waits in another thread is told `Unavailable`. Idempotent."""
        with self.lock:
            self.core.fail(Unavailable("this client was closed"))
            self._closed = True
            _hang_up(self._stream)
            self.wake()
            if not self._reading:
                self._release()

    # -- what a client waits for

    def finish(self, pending: Pending, frame: bytes, timeout_s: float | None) -> dict[str, Any]:
        """Send what `core` composed, and return its answer.

        Raises the error it was answered with; `DeadlineExceeded`, and then it may still happen; `Unavailable` where the link is gone.
        """
        self._send(frame, pending.link, pending)
        with self.lock:
            if not self.read_until(lambda: pending.done, deadline_in(timeout_s)):
                pending.abandon()
                raise DeadlineExceeded(
                    f"{pending.method} was not answered within {timeout_s} s; it may still happen", timeout_s=timeout_s
                )
        return pending.answer()

    def read_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Read the link until `ready()`; False when the deadline passed. Raises the link's error where it is broken.

        Called and left with the lock held.
        """
        while not ready():
            if self.core.broken is not None:
                raise self.core.broken
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            if self._reading:
                self._waiting.wait(left_s)
            elif self.core.lost is not None:
                self._renew(left_s)
            else:
                self._read_once(left_s)
        return True

    def wake(self) -> None:
        """Whoever waits is to look again, the one that reads too. Called with the lock held."""
        self._waiting.notify_all()
        if self._reading:
            with contextlib.suppress(BlockingIOError):  # full of wakes that are still to be seen
                self._wake.send(b"\0")

    def send_outgoing(self) -> None:
        """Send what the core wants to say. The lock is held before and after, not while sending."""
        if not self.core.outgoing:
            return
        frames, link = b"".join(self.core.outgoing), self.core.link
        self.core.outgoing.clear()
        self.lock.release()
        try:
            self._send(frames, link)
        finally:
            self.lock.acquire()

    # -- sending, and losing

    def _send(self, frame: bytes, link: int, pending: Pending | None = None) -> None:
        """Send what was composed for `link`, perhaps a call; on another one it was said again already, or will be."""
        try:
            with self._sending:
                if link == self.core.link and self.core.lost is None:
                    self._hand_over(frame, pending)
        except OSError as error:
            with self.lock:
                self._lose(error, link)
        except BaseException:
            with self.lock:
                self._lose(InterruptedError("interrupted while sending"), link)
            raise

    def _hand_over(self, frame: bytes, pending: Pending | None) -> None:
        if pending is not None:
            pending.sent = True
        try:
            self._stream.sendall(frame)
        except OSError as error:
            self.core.unheard(pending, error)
            raise

    def _lose(self, error: OSError, link: int) -> None:
        """That link broke. Called with the lock held."""
        if link == self.core.link:
            self.core.lose(Unavailable(f"the link to the guest broke ({error}): {LOST_REMEDY}", errno=error.errno))
            _hang_up(self._stream)  # whoever still sends on it ends
            self._waiting.notify_all()

    # -- reading, for everybody

    def _read_once(self, timeout_s: float | None) -> None:
        """Read once, for every thread that waits. The lock is held before and after, not while reading."""
        self._reading = True
        link = self.core.link
        data: bytes | None = None
        lost: OSError | None = None
        self.lock.release()
        try:
            data = self._receive(min(SILENCE_S, timeout_s or SILENCE_S) if self.core.lasting else timeout_s)
        except OSError as error:
            lost = error
        except BaseException:
            # An exception out of a signal handler: what was read at that moment may be lost, and the link with it.
            lost = InterruptedError("interrupted while reading")
            raise
        finally:
            self.lock.acquire()
            self._done_reading()
            if lost is not None:
                self._lose(lost, link)
        if data is not None:
            self._silence.heard()
            self.core.receive(data)
        elif self.core.lasting:
            self._judge_silence(time.monotonic(), link)
        self.send_outgoing()

    def _receive(self, timeout_s: float | None) -> bytes | None:
        """What came, b"" at the end, None when nothing came in time or this thread was woken."""
        ready = dict(self._poll.poll(None if timeout_s is None else timeout_s * 1000))
        if self._woken.fileno() in ready:
            self._woken.recv(RECEIVE_BYTES)
        return self._stream.recv(RECEIVE_BYTES) if self._stream.fileno() in ready else None

    def _watch(self) -> select.poll:
        poll = select.poll()
        for each in (self._stream, self._woken):
            poll.register(each.fileno(), select.POLLIN)
        return poll

    def _done_reading(self) -> None:
        """Another thread may. Called with the lock held."""
        self._reading = False
        self._waiting.notify_all()
        if self._closed:
            self._release()

    def _release(self) -> None:
        """Close what is held: not while it is read, lest its numbers become those of other files."""
        for each in (self._stream, self._woken, self._wake):
            each.close()

    def _judge_silence(self, now: float, link: int) -> None:
        """Nothing came, though somebody looked."""
        self._silence.looked(now)
        if self._silence.dead(now):
            self._silence.heard()
            self._lose(TimeoutError(f"it has not answered a ping for {SILENCE_S:g} s"), link)
        elif self._silence.ask(now):
            self.core.ask_alive()

    # -- making it again

    def _renew(self, timeout_s: float | None) -> None:
        """Try once to make the link again, for every thread that waits. The lock is held before and after, not meanwhile."""
        if self._redial is None:
            raise RuntimeError("only a client that is kept can lose a link and go on")
        self._reading = True
        if self._renewal.lost(time.monotonic()):
            self.changed(self.core.lost)
        left_s = DIAL_S if timeout_s is None else min(DIAL_S, timeout_s)
        self.lock.release()
        fresh: Link | None = None
        refused: CoworkError | None = None
        try:
            if self._pause(min(self._renewal.pause_s(), left_s)):
                fresh = self._redial(left_s)
        except CoworkError as error:
            refused = error
        finally:
            if fresh is not None:
                self._sending.acquire()
            self.lock.acquire()
            if fresh is not None:
                self._take_over(fresh)
                self._sending.release()
            elif refused is not None and self._renewal.over(time.monotonic(), refused):
                self.core.fail(refused)
            self._done_reading()
        self.send_outgoing()

    def _pause(self, pause_s: float) -> bool:
        """Wait so long; False as soon as this client is closed."""
        woken = select.poll()
        woken.register(self._woken.fileno(), select.POLLIN)
        until = time.monotonic() + pause_s
        while not self._closed and (left_s := until - time.monotonic()) > 0:
            if woken.poll(left_s * 1000):
                self._woken.recv(RECEIVE_BYTES)
        return not self._closed

    def _take_over(self, fresh: Link) -> None:
        """Go on over `fresh`. Called with both locks held: nothing composed for the old link is sent on the new one."""
        if self.core.broken is not None:
            fresh.close()
            return
        self._stream.close()
        fresh._woken.close()
        fresh._wake.close()
        self._stream, self.hello = fresh._stream, fresh.hello
        self._poll = self._watch()
        self.core.renew(fresh.core)
        self._renewal.renewed()
        self._silence.heard()
        self.changed(None)


def deadline_in(timeout_s: float | None) -> float | None:
    """The moment that is so far away (monotonic), for `read_until`; None is never."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def _hang_up(stream: Stream) -> None:
    """Wake whoever reads or writes it."""
    if isinstance(stream, socket.socket):
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
