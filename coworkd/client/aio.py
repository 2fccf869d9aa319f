"""The trio client, of the same shape as `sync`.

    async with await connect("vsock://3:5005") as client:
        await client.session_ensure(name="work")
        print((await client.run("work", ["uname", "-a"])).stdout)

Rules
- Any number of tasks may use one client; `aio_link` says how they share its link, which nobody reads while none waits, and what
  cancelling leaves of it.
- Errors as in `sync`, and links that are lost with `reconnect_s`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

import trio
from msgspec import Struct

from coworkd.client.aio_dial import dial
from coworkd.client.aio_link import AsyncLink
from coworkd.client.aio_process import AsyncProcess, AsyncSubscription
from coworkd.client.aio_stream import AsyncStream
from coworkd.client.aio_transfer import AsyncDownload, Pieces, send_upload
from coworkd.client.aio_verbs import AsyncVerbs
from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, Output, without_refused
from coworkd.client.pending import read_answer
from coworkd.client.renewal import DIAL_S, refuse_starting
from coworkd.client.stream_inbox import WINDOW_BYTES, StreamInbox
from coworkd.model.calls import FileDownloadOpened, HelloAnswer, ProcessStarted
from coworkd.model.errors import AlreadyExists, CoworkError, DeadlineExceeded, OutOfRange
from coworkd.model.event import Event
from coworkd.wire.convert import compose_answer
from coworkd.wire.endpoint import parse_endpoint

DEFAULT_TIMEOUT_S = 10.0


class AsyncClient(AsyncVerbs):
    """One link to a guest, for trio. Made by `connect`; `aclose` it, or use it in an `async with`."""

    def __init__(self, stream: trio.abc.Stream, first: bytes = b"") -> None:
        """Take over a connected stream on which no call was made yet; call `greet` next. The client closes it."""
        self._link = AsyncLink(stream, first)

    async def greet(
        self, client_name: str, token: str | None = None, *, keepalive_s: float | None = None
    ) -> HelloAnswer:
        """Say hello, once. Raises `Unauthenticated`, `InvalidState` (no common version), `Unavailable`."""
        return await self._link.greet(client_name, token, keepalive_s)

    @property
    def hello(self) -> HelloAnswer:
        """What the guest said of itself at the beginning of this link."""
        return self._link.hello

    # -- calls

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Call any method and return its answer as it came; errors as those of `sync.Client.call`."""
        pending, frame = self._link.core.request(method, params or {})
        return await self._link.finish(pending, frame, timeout_s)

    # -- commands

    async def start_process(self, request: Struct) -> AsyncProcess:
        """What `start` does, from a ready `ProcessStart`."""
        pending, frame, made = self._link.core.start(compose_answer(request))
        try:
            started = read_answer("process.start", await self._link.finish(pending, frame), ProcessStarted)
        except AlreadyExists:
            if not pending.elsewhere:
                raise
            return await self.attach(pending.params["id"])  # see `sync.Client.start_process`
        return AsyncProcess(self, started, made[0] if made else None)

    async def attach(
        self, process: str, *, stdout: int | None = None, stderr: int | None = None, tty: int | None = None
    ) -> AsyncProcess:
        """Attach this link to a process, each stream from its offset; with none given all begin at the oldest byte kept.

        Raises `NotFound`, `OutOfRange` (an offset that is no longer, or not yet, there).
        """
        given = {"stdout": stdout, "stderr": stderr, "tty": tty}
        offsets = {name: offset for name, offset in given.items() if offset is not None}
        info = await self.process_get(process=process)
        pending, frame, made = self._link.core.attach(process, offsets)
        await self._link.finish(pending, frame)
        started = ProcessStarted(process=process, pid=info.pid or 0, started_at=info.started_at)
        return AsyncProcess(self, started, made[0])

    async def events(self, *, after: int | None = None) -> AsyncSubscription:
        """Subscribe to the published events after `after`, or to what comes next. One subscription a link."""
        feed = Feed(after)
        pending, frame = self._link.core.subscribe(feed)
        await self._link.finish(pending, frame)
        return AsyncSubscription(self, feed)

    # -- streams

    async def forward(self, session: str, port: int, *, window: int = WINDOW_BYTES) -> AsyncStream:
        """A stream to a port that a session listens on. Raises `NotFound`, `InvalidState` (nobody listens), `LimitExceeded`.

        Cancelled before the answer came, the stream is closed when it comes.
        """
        return (await self._open_stream("forward.open", {"session": session, "port": port, "window": window}))[0]

    async def upload(
        self,
        session: str,
        path: str | bytes,
        data: Pieces,
        *,
        tar: bool = False,
        mode: int = 0o644,
        mtime_ns: int | None = None,
        size: int | None = None,
    ) -> int:
        """Make `path` of a session a file with these bytes, or with `tar` the tree that they are an archive of; how many there were.

        `size` is what is to come, where it is known. Raises what the guest says, `LimitExceeded` for a full disk among it.
        """
        params = {"session": session, "path": path, "tar": tar, "mode": mode, "mtime_ns": mtime_ns, "size": size}
        stream, _ = await self._open_stream(
            "file.upload", {name: value for name, value in params.items() if value is not None}
        )
        return await send_upload(stream, data)

    async def download(
        self, session: str, path: str | bytes, *, tar: bool = False, window: int = WINDOW_BYTES
    ) -> AsyncDownload:
        """The bytes of a file of a session, or with `tar` an archive of what is there."""
        params = {"session": session, "path": path, "tar": tar, "window": window}
        stream, answer = await self._open_stream("file.download", params)
        return AsyncDownload(stream, read_answer("file.download", answer, FileDownloadOpened))

    async def _open_stream(self, method: str, params: Mapping[str, Any]) -> tuple[AsyncStream, dict[str, Any]]:
        pending, frame, made = self._link.core.open_stream(method, params)
        try:
            answer = await self._link.finish_whole(pending, frame)
        except BaseException:
            for inbox in made:
                await self.close_stream(inbox)
            raise
        return AsyncStream(self, made[0]), answer

    # -- the link

    def keep(self, redial: Callable[[], Awaitable[AsyncClient]], limit_s: float) -> None:
        """From now on a link that is lost is made again: `redial` gives another client, greeted and unused, or raises a
        `CoworkError`; tried for `limit_s`. See `connect`.
        """

        async def link() -> AsyncLink:
            return (await redial())._link

        self._link.keep(link, limit_s)

    @property
    def broken(self) -> CoworkError | None:
        """Why the link is no more, or None."""
        return self._link.core.broken

    @property
    def renewals(self) -> int:
        """How often the link was made again."""
        return self._link.core.link

    async def wait_broken(self) -> CoworkError:
        """Return why, when the link is no more. Whoever waits here reads it for all others meanwhile."""
        try:
            await self._link.read_until(self, lambda: False)
        except CoworkError as error:
            return error
        raise AssertionError("a link is read until it breaks")

    async def aclose(self) -> None:
        """End the link; calls that wait in other tasks raise `Unavailable`. Idempotent."""
        await self._link.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- what `AsyncProcess` and `AsyncSubscription` stand on

    async def next_output(self, inbox: Inbox) -> Output | None:
        """The next piece of an inbox; None when it is finished. For `AsyncProcess`."""
        while True:
            if (piece := inbox.take()) is not None:
                await trio.lowlevel.checkpoint()
                return piece
            if inbox.parked:
                await self._attach_again(inbox)
                continue
            await self._link.read_until(inbox, lambda: inbox.waiting or inbox.finished or inbox.parked)
            if inbox.finished:
                return None

    async def next_event(self, feed: Feed) -> Event:
        """The next event of a feed. For `AsyncSubscription`."""
        while True:
            if (event := feed.take()) is not None:
                await trio.lowlevel.checkpoint()
                return event
            if feed.parked:
                pending, frame = self._link.core.subscribe(feed)
                await self._link.finish(pending, frame)
            else:
                await self._link.read_until(feed, lambda: feed.waiting)

    def drop_feed(self) -> None:
        """No link that comes is to be asked for events. For `AsyncSubscription`."""
        feed = self._link.core.feed
        self._link.core.unsubscribe()
        self._link.wake(feed)

    def drop(self, inbox: Inbox) -> None:
        """Throw away what still comes for it. For `AsyncProcess`."""
        self._link.core.drop(inbox)
        self._link.wake(inbox)

    async def next_chunk(self, inbox: StreamInbox, limit_bytes: int | None) -> bytes:
        """The next bytes of a stream, empty at its end. For `AsyncStream`."""
        await trio.lowlevel.checkpoint()
        while True:
            data = inbox.take(limit_bytes)
            if data is not None:
                break
            await self._link.read_until(inbox, lambda: inbox.waiting)
        self._link.core.acknowledge(inbox)
        await self._link.send_outgoing()
        return data

    async def call_whole(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """As `call`, but cancelling never breaks the link: what is being sent is sent to its end first. For `AsyncStream`."""
        return await self._link.finish_whole(*self._link.core.request(method, params))

    async def close_stream(self, inbox: StreamInbox) -> None:
        """Close a stream of this link, cancelled or not; nothing is waited for. For `AsyncStream`."""
        self._link.core.close_stream(inbox)
        self._link.wake(inbox)
        await self._link.send_outgoing()

    async def _attach_again(self, inbox: Inbox) -> None:
        """Go on where a parked inbox stopped; what the guest no longer has shows as a gap."""
        offsets = inbox.positions()
        while inbox.parked:
            pending, frame, _ = self._link.core.attach(inbox.process, offsets, inbox)
            try:
                await self._link.finish(pending, frame)
            except OutOfRange as error:
                offsets = without_refused(offsets, error)


async def connect(
    uri: str,
    *,
    token: str | None = None,
    client_name: str = "coworkd-client",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    reconnect_s: float = 0,
    keepalive_s: float | None = None,
) -> AsyncClient:
    """Connect to a guest and say hello; the caller closes the client. URIs, errors and `reconnect_s` as in `sync.connect`.

    `keepalive_s` promises that the caller calls something (`ping`) at least so often: a guest that hears nothing three times as long
    takes it for gone.
    """
    endpoint = parse_endpoint(uri)

    async def link(within_s: float = DIAL_S, *, again: bool = True) -> AsyncClient:
        try:
            with trio.fail_after(within_s):
                client = AsyncClient(*await dial(endpoint))
                try:
                    await client.greet(client_name, token, keepalive_s=keepalive_s)
                    if again:
                        refuse_starting(client.hello)
                except BaseException:
                    await client.aclose()
                    raise
        except trio.TooSlowError:
            raise DeadlineExceeded(f"{endpoint} did not answer hello within {within_s} s", timeout_s=within_s) from None
        return client

    client = await link(timeout_s, again=False)
    if reconnect_s > 0:
        client.keep(link, reconnect_s)
    return client
