"""A started or attached command, and a subscription, for trio. Rules and errors as in `process`.

    async with await client.start("work", ["make", "-j4"]) as process:
        async for piece in process:
            sys.stdout.buffer.write(piece.data)
        print((await process.wait()).exit)

Cancelling `read`, `wait` or iteration loses nothing; cancelling `write_stdin` leaves in `stdin_offset` what was taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from coworkd.client.collect import COLLECT_LIMIT_BYTES, Collected, Collector
from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, Output
from coworkd.client.stdin import RETRY_FIRST_S, check_unread, chunk_at, next_pause_s
from coworkd.model.calls import ProcessStarted
from coworkd.model.errors import CoworkError, InvalidState, NotFound, OutOfRange
from coworkd.model.event import Event
from coworkd.model.process import ExitRecord

if TYPE_CHECKING:
    from coworkd.client.aio import AsyncClient

END_TIMEOUT_S = 10.0


class AsyncProcess:
    """One command. `id` names it on every link; `pid` is the command's in the guest; `narrowed` what policy cut."""

    def __init__(self, client: AsyncClient, started: ProcessStarted, inbox: Inbox | None) -> None:
        self.id = started.process
        self.pid = started.pid
        self.started_at = started.started_at
        self.narrowed = started.narrowed
        self.stdin_offset = 0
        self._client = client
        self._inbox = inbox
        self._released = False

    # -- output

    async def read(self) -> Output | None:
        """The next piece of output; None behind the last one.

        Raises `OutOfRange` (a gap), `InvalidState` (not attached), `Unavailable` (the link is gone).
        """
        return await self._client.next_output(self._attached())

    def __aiter__(self) -> AsyncProcess:
        return self

    async def __anext__(self) -> Output:
        piece = await self.read()
        if piece is None:
            raise StopAsyncIteration
        return piece

    @property
    def finished(self) -> bool:
        """The exit is known and all output was read."""
        return self._inbox is not None and self._inbox.finished

    def offsets(self) -> dict[str, int]:
        """Stream → the next offset not received yet, of those that have not ended: where `AsyncClient.attach` goes on."""
        return dict(self._attached().wanted)

    # -- stdin

    async def write_some(self, data: bytes) -> int:
        """Offer `data` once; how many of its first bytes were taken, maybe none."""
        offered = chunk_at(data, 0)
        answer = await self._client.process_write_stdin(process=self.id, offset=self.stdin_offset, data=offered)
        count = answer.offset - self.stdin_offset
        self.stdin_offset = answer.offset
        return count

    async def write_stdin(self, data: bytes) -> None:
        """Write all of `data`, waiting while the command does not read; see `process.Process.write_stdin`."""
        position, pause_s = 0, RETRY_FIRST_S
        while position < len(data):
            taken = await self.write_some(chunk_at(data, position))
            position += taken
            if taken:
                pause_s = RETRY_FIRST_S
                continue
            check_unread(self._inbox, position)
            await trio.sleep(pause_s)
            pause_s = next_pause_s(pause_s)

    async def resume_stdin(self) -> int:
        """Ask how much of stdin was taken so far, from whatever link, and go on behind it; returns that offset."""
        self.stdin_offset = (await self._client.process_write_stdin(process=self.id, offset=0, data=b"")).offset
        return self.stdin_offset

    async def close_stdin(self) -> None:
        """No more input: the command reads end of file after what was taken."""
        await self._client.process_close_stdin(process=self.id, offset=self.stdin_offset)

    async def communicate(self, data: bytes = b"", *, limit_bytes: int = COLLECT_LIMIT_BYTES) -> Collected:
        """Write `data`, close stdin and read to the end, all at once. For a process started with `stdin=True`.

        What the command does not read of `data` is dropped when it ends. Raises `LimitExceeded` where it says more than
        `limit_bytes`, and what `read` and `write_stdin` raise.
        """
        collected = Collector(limit_bytes)
        failures: list[CoworkError] = []

        async def collect() -> None:
            while (piece := await self.read()) is not None:
                collected.add(piece)
            nursery.cancel_scope.cancel()

        async def attempt(part: Callable[[], Awaitable[None]]) -> None:
            """The first failure ends both: they mostly fail of the same, and who calls is told one error and no group."""
            try:
                await part()
            except CoworkError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, partial(self._feed_stdin, data))
            nursery.start_soon(attempt, collect)
        if failures:
            raise failures[0]
        return Collected(collected.streams(), await self.wait())

    async def _feed_stdin(self, data: bytes) -> None:
        with contextlib.suppress(InvalidState, NotFound, OutOfRange):
            await self.write_stdin(data)
            await self.close_stdin()

    # -- control

    async def signal(self, signal: int | str) -> None:
        """Send `"INT"`, `"SIGINT"` or 2 to the command's process group. Raises `InvalidState` when it has ended."""
        await self._client.process_signal(process=self.id, signal=signal)

    async def kill(self, grace_s: float | None = None) -> None:
        """TERM to the group, and after `grace_s` (None: 5, 0: at once) the end of the whole tree. Does not wait."""
        await self._client.process_kill(process=self.id, grace_s=grace_s)

    async def resize(self, rows: int, cols: int) -> None:
        """The size of its terminal, in cells."""
        await self._client.process_resize(process=self.id, rows=rows, cols=cols)

    async def wait(self, timeout_s: float | None = None) -> ExitRecord:
        """The exit record; does not read output, and what was not read stays readable. Raises `DeadlineExceeded`."""
        if self._inbox is not None and self._inbox.exit is not None:
            await trio.lowlevel.checkpoint()
            return self._inbox.exit
        return await self._client.process_wait(process=self.id, timeout_s=timeout_s)

    async def detach(self) -> None:
        """Stop receiving output; the command runs on, also past the end of an `async with`."""
        self._released = True
        if self._inbox is not None:
            self._client.drop(self._inbox)
            self._inbox = None
            await self._client.process_detach(process=self.id)

    async def forget(self) -> None:
        """Let the guest drop the record and the output of an ended process; another link that reads it has the rest first."""
        if self._inbox is not None:
            self._client.drop(self._inbox)
        await self._client.process_forget(process=self.id)
        self._released = True

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._released:
            return
        with trio.CancelScope(deadline=trio.current_time() + END_TIMEOUT_S, shield=True):
            await self._end(error)

    async def _end(self, error: BaseException | None) -> None:
        try:
            if self._inbox is None or self._inbox.exit is None:
                await self.kill(0)
                await self.wait()
            await self.forget()
        except CoworkError:
            # Whatever made us leave says more than a link that is gone as well; without it, this is the news.
            if error is None:
                raise

    def _attached(self) -> Inbox:
        if self._inbox is None:
            raise InvalidState(f"this handle is not attached to process {self.id}: use client.attach({self.id!r})")
        return self._inbox


class AsyncSubscription:
    """The published events of a guest, in order. One a link; `aclose` ends it."""

    def __init__(self, client: AsyncClient, feed: Feed) -> None:
        self._client = client
        self._feed = feed

    @property
    def missed(self) -> int:
        """How many events were gone from the guest's ring before they could be had."""
        return self._feed.missed

    @property
    def last_seq(self) -> int | None:
        """What to give as `after` to go on from here on another link."""
        return self._feed.last_seq

    async def read(self) -> Event:
        """The next event. Raises `Unavailable` where the link is gone."""
        return await self._client.next_event(self._feed)

    def __aiter__(self) -> AsyncSubscription:
        return self

    async def __anext__(self) -> Event:
        return await self.read()

    async def aclose(self) -> None:
        """Unsubscribe."""
        self._client.drop_feed()
        await self._client.events_unsubscribe()
