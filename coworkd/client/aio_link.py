"""The link of a trio client, as its tasks share it: one link, or several after one another. The twin of `link`.

Rules
- There is no task of its own and no nursery: whichever task waits for something reads the link for all of them (`aio_waiting`), and
  makes it again where it is kept and was lost (`renewal` says when).
- Nothing is read while nobody waits; a subscriber or an attached process that is not read for long slows this link only.
- What was composed for one link is never sent on the next.
- Cancelling a wait leaves the link as it was, the call may still happen; cancelling in the middle of sending breaks the
  link, since half a message cannot be taken back.

It knows no verbs and no handles (`aio`), and not what a lost link means for what was said on it (`core`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from coworkd.client.aio_waiting import Waiting
from coworkd.client.core import LOST_REMEDY, Core
from coworkd.client.pending import Pending, read_answer
from coworkd.client.renewal import SILENCE_S, Renewal, Silence
from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import CoworkError, DeadlineExceeded, Unavailable

RECEIVE_BYTES = 256 * 1024


class AsyncLink:
    """The link of one client; `aclose` ends it."""

    hello: HelloAnswer

    def __init__(self, stream: trio.abc.Stream, first: bytes = b"") -> None:
        """Take over a connected stream, and what came on it already; call `greet` next."""
        self.core = Core()
        if first:
            self.core.receive(first)
        self._stream = stream
        self._sending = trio.Lock()
        self._waiting = Waiting()
        self._reading = False
        """Some task reads the link, or makes it again."""
        self._patience = trio.CancelScope()
        """Around what is read."""
        self._silence = Silence()
        self._renewal = Renewal(0)
        self._redial: Callable[[], Awaitable[AsyncLink]] | None = None

    async def greet(self, client_name: str, token: str | None, keepalive_s: float | None) -> HelloAnswer:
        """Say hello, once. Errors as those of `finish`, and of a guest that refuses."""
        pending, frame = self.core.hello(client_name, token, keepalive_s)
        self.hello = read_answer("hello", await self.finish(pending, frame), HelloAnswer)
        return self.hello

    def keep(self, redial: Callable[[], Awaitable[AsyncLink]], limit_s: float) -> None:
        """From now on it is made again where it is lost: `redial` gives another, greeted and unused. See `aio.AsyncClient.keep`."""
        self._redial, self._renewal, self.core.lasting = redial, Renewal(limit_s), True

    async def aclose(self) -> None:
        """End it; whoever waits in another task is told `Unavailable`. Idempotent."""
        self.core.fail(Unavailable("this client was closed"))
        self._waiting.wake_all()
        await trio.aclose_forcefully(self._stream)

    # -- what a client waits for

    async def finish(self, pending: Pending, frame: bytes, timeout_s: float | None = None) -> dict[str, Any]:
        """Send what `core` composed, and return its answer; errors as those of `link.Link.finish`."""
        try:
            with trio.fail_after(float("inf") if timeout_s is None else timeout_s):
                await self._send(frame, pending.link, pending)
                await self.read_until(pending, lambda: pending.done)
        except trio.TooSlowError:
            raise DeadlineExceeded(
                f"{pending.method} was not answered within {timeout_s} s; it may still happen", timeout_s=timeout_s
            ) from None
        finally:
            if not pending.done:
                pending.abandon()
        return pending.answer()

    async def finish_whole(self, pending: Pending, frame: bytes) -> dict[str, Any]:
        """As `finish`, but cancelling never breaks the link: what is being sent is sent to its end first."""
        with trio.CancelScope(shield=True):
            await self._send(frame, pending.link, pending)
        try:
            await self.read_until(pending, lambda: pending.done)
        finally:
            if not pending.done:
                pending.abandon()
        return pending.answer()

    async def read_until(self, thing: object, ready: Callable[[], bool]) -> None:
        """Read the link until `ready()`, which comes with something for `thing`. Raises the link's error where it is broken."""
        try:
            while not ready():
                if self.core.broken is not None:
                    raise self.core.broken
                if self._reading:
                    await self._waiting.wait(thing)
                elif self.core.lost is not None:
                    await self._renew()
                else:
                    await self._read_once()
        finally:
            if not self._reading:
                self._waiting.hand_on()

    def wake(self, thing: object) -> None:
        """Whoever waits for it is to look again, and so is the one that reads."""
        self._waiting.wake((thing,))
        self._patience.cancel()

    async def send_outgoing(self) -> None:
        """Send what the core wants to say, cancelled or not."""
        with trio.CancelScope(shield=True):
            while self.core.outgoing:
                link = self.core.link
                await self._send(self.core.outgoing.popleft(), link)

    # -- sending, and losing

    async def _send(self, frame: bytes, link: int, pending: Pending | None = None) -> None:
        """Send what was composed for `link`, perhaps a call; on another one it was said again already, or will be."""
        try:
            async with self._sending:
                if link == self.core.link and self.core.lost is None:
                    await self._hand_over(frame, link, pending)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(error, link)

    async def _hand_over(self, frame: bytes, link: int, pending: Pending | None) -> None:
        if pending is not None:
            pending.sent = True
        try:
            await self._send_whole(frame, link)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.core.unheard(pending, error)
            raise

    async def _send_whole(self, frame: bytes, link: int) -> None:
        try:
            await self._stream.send_all(frame)
        except trio.Cancelled:
            self._lose(trio.BrokenResourceError("a call was cancelled in the middle of being sent"), link)
            raise

    def _lose(self, error: Exception, link: int) -> None:
        if link != self.core.link:
            return
        reason = str(error.__cause__ or error) or type(error).__name__
        self.core.lose(Unavailable(f"the link to the guest broke ({reason}): {LOST_REMEDY}"))
        self._waiting.wake_all()

    # -- reading, for everybody

    async def _read_once(self) -> None:
        """Read once, for every task that waits; cancelled, another of them takes over."""
        self._reading = True
        link = self.core.link
        try:
            with trio.move_on_after(SILENCE_S if self.core.lasting else float("inf")) as self._patience:
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                self._silence.heard()
                self.core.receive(data)
            if self._patience.cancelled_caught and trio.current_time() >= self._patience.deadline:
                self._judge_silence(trio.current_time(), link)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(error, link)
        finally:
            self._reading = False
            if self.core.broken is not None or self.core.lost is not None:
                self._waiting.wake_all()
            else:
                self._waiting.wake(self.core.news)
        if self.core.outgoing:
            self._waiting.hand_on()  # the guest may take nothing before it is read
            await self.send_outgoing()

    def _judge_silence(self, now: float, link: int) -> None:
        """Nothing came, though somebody looked for `SILENCE_S`."""
        self._silence.looked(now - SILENCE_S)
        if self._silence.dead(now):
            self._silence.heard()
            self._lose(TimeoutError(f"it has not answered a ping for {SILENCE_S:g} s"), link)
        elif self._silence.ask(now):
            self.core.ask_alive()

    # -- making it again

    async def _renew(self) -> None:
        """Try once to make the link again, for every task that waits; cancelled, another of them takes over."""
        if self._redial is None:
            raise RuntimeError("only a client that is kept can lose a link and go on")
        self._reading = True
        self._renewal.lost(trio.current_time())
        try:
            await trio.aclose_forcefully(self._stream)
            await trio.sleep(self._renewal.pause_s())
            await self._take_over(await self._redial())
        except CoworkError as error:
            if self._renewal.over(trio.current_time(), error):
                self.core.fail(error)
        finally:
            self._reading = False
            self._waiting.wake_all()
        await self.send_outgoing()

    async def _take_over(self, fresh: AsyncLink) -> None:
        """Go on over `fresh`."""
        if self.core.broken is not None:  # closed meanwhile
            await fresh.aclose()
            return
        self._stream, self.hello = fresh._stream, fresh.hello
        self.core.renew(fresh.core)
        self._renewal.renewed()
        self._silence.heard()
