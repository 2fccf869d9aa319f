"""The trio client, of the same shape as `sync`.

    async with await connect("vsock://3:5005") as client:
        await client.session_ensure(name="work")
        print((await client.run("work", ["uname", "-a"])).stdout)

Rules
- There is no task of its own and no nursery: whichever task waits for something reads the link for all of them.
- Nothing is read while nobody waits; a subscriber or an attached process that is not read for long slows this link only.
- Cancelling a wait leaves the link as it was, the call may still happen; cancelling in the middle of sending breaks the
  link, since half a message cannot be taken back.
- Errors as in `sync`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import trio
from msgspec import Struct

from coworkd.client import methods
from coworkd.client.aio_dial import dial
from coworkd.client.aio_process import AsyncProcess, AsyncSubscription
from coworkd.client.aio_stream import AsyncStream
from coworkd.client.aio_transfer import AsyncDownload, Pieces, send_upload
from coworkd.client.core import LOST_REMEDY, Core, Pending, read_answer
from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, Output, without_refused
from coworkd.client.methods import Method, P
from coworkd.client.stream_inbox import WINDOW_BYTES, StreamInbox
from coworkd.model.calls import FileDownloadOpened, HelloAnswer, ProcessStarted
from coworkd.model.errors import CoworkError, DeadlineExceeded, OutOfRange, Unavailable
from coworkd.model.event import Event
from coworkd.wire.convert import compose_answer
from coworkd.wire.endpoint import parse_endpoint

A = TypeVar("A", bound=Struct)
RECEIVE_BYTES = 256 * 1024
DEFAULT_TIMEOUT_S = 10.0


class _Verb(Generic[P, A]):
    """A `Method` as a method of `AsyncClient`: keyword arguments in, typed answer out."""

    def __init__(self, method: Method[P, A]) -> None:
        self._method = method

    @overload
    def __get__(self, client: None, owner: type) -> _Verb[P, A]: ...

    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Awaitable[A]]: ...

    def __get__(self, client: AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self
        method = self._method

        async def verb(*args: Any, **fields: Any) -> Any:
            answer = await client.call(method.name, compose_answer(method.build(*args, **fields)))
            return read_answer(method.name, answer, method.answer)

        return verb


class _Start(Generic[P]):
    """`process.start` as a method of `AsyncClient`: keyword arguments in, an `AsyncProcess` out."""

    def __init__(self, method: Method[P, ProcessStarted]) -> None:
        self._method = method

    @overload
    def __get__(self, client: None, owner: type) -> _Start[P]: ...

    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Awaitable[AsyncProcess]]: ...

    def __get__(self, client: AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self

        async def start(*args: Any, **fields: Any) -> AsyncProcess:
            return await client.start_process(self._method.build(*args, **fields))

        return start


class AsyncClient:
    """One link to a guest, for trio. Made by `connect`; `aclose` it, or use it in an `async with`."""

    hello: HelloAnswer

    def __init__(self, stream: trio.abc.Stream, first: bytes = b"") -> None:
        """Take over a connected stream on which no call was made yet; call `greet` next. The client closes it."""
        self._stream = stream
        self._core = Core()
        if first:
            self._core.receive(first)
        self._sending = trio.Lock()
        self._waiting = trio.lowlevel.ParkingLot()
        self._reading = False

    async def greet(self, client_name: str, token: str | None = None) -> HelloAnswer:
        """Say hello, once. Raises `Unauthenticated`, `InvalidState` (no common version), `Unavailable`."""
        pending, frame = self._core.hello(client_name, token)
        self.hello = read_answer("hello", await self._finish(pending, frame), HelloAnswer)
        return self.hello

    # -- calls

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Call any method and return its answer as it came; errors as those of `sync.Client.call`."""
        pending, frame = self._core.request(method, params or {})
        return await self._finish(pending, frame, timeout_s)

    run = _Verb(methods.PROCESS_RUN)
    start = _Start(methods.PROCESS_START)
    ping = _Verb(methods.PING)
    info = _Verb(methods.INFO)
    stats = _Verb(methods.STATS)
    doctor = _Verb(methods.DOCTOR)
    logs = _Verb(methods.LOGS)
    set_log_level = _Verb(methods.SET_LOG_LEVEL)
    shutdown = _Verb(methods.SHUTDOWN)
    sync_clock = _Verb(methods.SYNC_CLOCK)
    boot_time = _Verb(methods.BOOT_TIME)
    session_ensure = _Verb(methods.SESSION_ENSURE)
    session_get = _Verb(methods.SESSION_GET)
    session_list = _Verb(methods.SESSION_LIST)
    session_delete = _Verb(methods.SESSION_DELETE)
    session_set_policy = _Verb(methods.SESSION_SET_POLICY)
    session_policy = _Verb(methods.SESSION_POLICY)
    session_usage = _Verb(methods.SESSION_USAGE)
    session_prune = _Verb(methods.SESSION_PRUNE)
    session_retention = _Verb(methods.SESSION_RETENTION)
    folder_mount = _Verb(methods.FOLDER_MOUNT)
    folder_unmount = _Verb(methods.FOLDER_UNMOUNT)
    folder_set_mode = _Verb(methods.FOLDER_SET_MODE)
    folder_list = _Verb(methods.FOLDER_LIST)
    folder_changes = _Verb(methods.FOLDER_CHANGES)
    folder_commit = _Verb(methods.FOLDER_COMMIT)
    folder_discard = _Verb(methods.FOLDER_DISCARD)
    approval_list = _Verb(methods.APPROVAL_LIST)
    approval_answer = _Verb(methods.APPROVAL_ANSWER)
    process_detach = _Verb(methods.PROCESS_DETACH)
    process_write_stdin = _Verb(methods.PROCESS_WRITE_STDIN)
    process_close_stdin = _Verb(methods.PROCESS_CLOSE_STDIN)
    process_resize = _Verb(methods.PROCESS_RESIZE)
    process_signal = _Verb(methods.PROCESS_SIGNAL)
    process_kill = _Verb(methods.PROCESS_KILL)
    process_wait = _Verb(methods.PROCESS_WAIT)
    process_get = _Verb(methods.PROCESS_GET)
    process_list = _Verb(methods.PROCESS_LIST)
    process_forget = _Verb(methods.PROCESS_FORGET)
    egress_check = _Verb(methods.EGRESS_CHECK)
    egress_log = _Verb(methods.EGRESS_LOG)
    egress_allow = _Verb(methods.EGRESS_ALLOW)
    egress_status = _Verb(methods.EGRESS_STATUS)
    egress_presets = _Verb(methods.EGRESS_PRESETS)
    ca_install = _Verb(methods.CA_INSTALL)
    ca_list = _Verb(methods.CA_LIST)
    ca_remove = _Verb(methods.CA_REMOVE)
    audit_tail = _Verb(methods.AUDIT_TAIL)
    audit_query = _Verb(methods.AUDIT_QUERY)
    audit_export = _Verb(methods.AUDIT_EXPORT)
    audit_verify = _Verb(methods.AUDIT_VERIFY)
    events_unsubscribe = _Verb(methods.EVENTS_UNSUBSCRIBE)
    policy_show = _Verb(methods.POLICY_SHOW)
    policy_reload = _Verb(methods.POLICY_RELOAD)
    file_read = _Verb(methods.FILE_READ)
    file_write = _Verb(methods.FILE_WRITE)
    file_list = _Verb(methods.FILE_LIST)
    file_stat = _Verb(methods.FILE_STAT)
    file_mkdir = _Verb(methods.FILE_MKDIR)
    file_move = _Verb(methods.FILE_MOVE)
    file_remove = _Verb(methods.FILE_REMOVE)
    stream_write = _Verb(methods.STREAM_WRITE)
    stream_close_write = _Verb(methods.STREAM_CLOSE_WRITE)
    stream_ack = _Verb(methods.STREAM_ACK)
    stream_close = _Verb(methods.STREAM_CLOSE)
    bridge_open = _Verb(methods.BRIDGE_OPEN)
    bridge_list = _Verb(methods.BRIDGE_LIST)
    bridge_close = _Verb(methods.BRIDGE_CLOSE)
    tool_install = _Verb(methods.TOOL_INSTALL)
    tool_list = _Verb(methods.TOOL_LIST)
    tool_remove = _Verb(methods.TOOL_REMOVE)
    storage_usage = _Verb(methods.STORAGE_USAGE)
    storage_trim = _Verb(methods.STORAGE_TRIM)
    storage_grow = _Verb(methods.STORAGE_GROW)
    update_status = _Verb(methods.UPDATE_STATUS)
    update_apply = _Verb(methods.UPDATE_APPLY)
    update_rollback = _Verb(methods.UPDATE_ROLLBACK)

    # -- commands

    async def start_process(self, request: Struct) -> AsyncProcess:
        """What `start` does, from a ready `ProcessStart`."""
        pending, frame, made = self._core.start(compose_answer(request))
        started = read_answer("process.start", await self._finish(pending, frame), ProcessStarted)
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
        pending, frame, made = self._core.attach(process, offsets)
        await self._finish(pending, frame)
        started = ProcessStarted(process=process, pid=info.pid or 0, started_at=info.started_at)
        return AsyncProcess(self, started, made[0])

    async def events(self, *, after: int | None = None) -> AsyncSubscription:
        """Subscribe to the published events after `after`, or to what comes next. One subscription a link."""
        feed = Feed(after)
        pending, frame = self._core.subscribe(feed)
        await self._finish(pending, frame)
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
        pending, frame, made = self._core.open_stream(method, params)
        try:
            answer = await self._finish_whole(pending, frame)
        except BaseException:
            for inbox in made:
                await self.close_stream(inbox)
            raise
        return AsyncStream(self, made[0]), answer

    # -- the link

    @property
    def broken(self) -> CoworkError | None:
        """Why the link is no more, or None."""
        return self._core.broken

    async def wait_broken(self) -> CoworkError:
        """Return why, when the link is no more. Whoever waits here reads it for all others meanwhile."""
        try:
            await self._read_until(lambda: False)
        except CoworkError as error:
            return error
        raise AssertionError("a link is read until it breaks")

    async def aclose(self) -> None:
        """End the link; calls that wait in other tasks raise `Unavailable`. Idempotent."""
        self._core.fail(Unavailable("this client was closed"))
        self._waiting.unpark_all()
        await trio.aclose_forcefully(self._stream)

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
            await self._read_until(lambda: inbox.waiting or inbox.finished or inbox.parked)
            if inbox.finished:
                return None

    async def next_event(self, feed: Feed) -> Event:
        """The next event of a feed. For `AsyncSubscription`."""
        while True:
            if (event := feed.take()) is not None:
                await trio.lowlevel.checkpoint()
                return event
            if feed.parked:
                pending, frame = self._core.subscribe(feed)
                await self._finish(pending, frame)
            else:
                await self._read_until(lambda: feed.waiting)

    def drop(self, inbox: Inbox) -> None:
        """Throw away what still comes for it. For `AsyncProcess`."""
        self._core.drop(inbox)

    async def next_chunk(self, inbox: StreamInbox, limit_bytes: int | None) -> bytes:
        """The next bytes of a stream, empty at its end. For `AsyncStream`."""
        await trio.lowlevel.checkpoint()
        while True:
            data = inbox.take(limit_bytes)
            if data is not None:
                break
            await self._read_until(lambda: inbox.waiting)
        self._core.acknowledge(inbox)
        await self._send_outgoing()
        return data

    async def call_whole(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """As `call`, but cancelling never breaks the link: what is being sent is sent to its end first. For `AsyncStream`."""
        return await self._finish_whole(*self._core.request(method, params))

    async def close_stream(self, inbox: StreamInbox) -> None:
        """Close a stream of this link, cancelled or not; nothing is waited for. For `AsyncStream`."""
        self._core.close_stream(inbox)
        await self._send_outgoing()

    async def _finish_whole(self, pending: Pending, frame: bytes) -> dict[str, Any]:
        with trio.CancelScope(shield=True):
            await self._send(frame)
        try:
            await self._read_until(lambda: pending.done)
        finally:
            if not pending.done:
                self._core.abandon(pending)
        return pending.answer()

    async def _send_outgoing(self) -> None:
        with trio.CancelScope(shield=True):
            while self._core.outgoing:
                await self._send(self._core.outgoing.popleft())

    async def _attach_again(self, inbox: Inbox) -> None:
        """Go on where a parked inbox stopped; what the guest no longer has shows as a gap."""
        offsets = dict(inbox.wanted)
        while inbox.parked:
            pending, frame, _ = self._core.attach(inbox.process, offsets, inbox)
            try:
                await self._finish(pending, frame)
            except OutOfRange as error:
                offsets = without_refused(offsets, error)

    async def _finish(self, pending: Pending, frame: bytes, timeout_s: float | None = None) -> dict[str, Any]:
        try:
            with trio.fail_after(float("inf") if timeout_s is None else timeout_s):
                await self._send(frame)
                await self._read_until(lambda: pending.done)
        except trio.TooSlowError:
            raise DeadlineExceeded(
                f"{pending.method} was not answered within {timeout_s} s; it may still happen", timeout_s=timeout_s
            ) from None
        finally:
            if not pending.done:
                self._core.abandon(pending)
        return pending.answer()

    async def _send(self, frame: bytes) -> None:
        try:
            async with self._sending:
                await self._send_whole(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(error)

    async def _send_whole(self, frame: bytes) -> None:
        try:
            await self._stream.send_all(frame)
        except trio.Cancelled:
            self._lose(trio.BrokenResourceError("a call was cancelled in the middle of being sent"))
            raise

    def _lose(self, error: Exception) -> None:
        reason = str(error.__cause__ or error) or type(error).__name__
        self._core.fail(Unavailable(f"the link to the guest broke ({reason}): {LOST_REMEDY}"))
        self._waiting.unpark_all()

    async def _read_until(self, ready: Callable[[], bool]) -> None:
        """Read the link until `ready()`. Raises the link's error where it is broken."""
        while not ready():
            if self._core.broken is not None:
                raise self._core.broken
            if self._reading:
                await self._waiting.park()
            else:
                await self._read_once()

    async def _read_once(self) -> None:
        """Read once, for every task that waits; cancelled, another of them takes over."""
        self._reading = True
        try:
            self._core.receive(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(error)
        finally:
            self._reading = False
            self._waiting.unpark_all()
        await self._send_outgoing()


async def connect(
    uri: str, *, token: str | None = None, client_name: str = "coworkd-client", timeout_s: float = DEFAULT_TIMEOUT_S
) -> AsyncClient:
    """Connect to a guest and say hello; the caller closes the client. URIs and errors as `sync.connect`."""
    endpoint = parse_endpoint(uri)
    try:
        with trio.fail_after(timeout_s):
            client = AsyncClient(*await dial(endpoint))
            try:
                await client.greet(client_name, token)
            except BaseException:
                await client.aclose()
                raise
    except trio.TooSlowError:
        raise DeadlineExceeded(f"{endpoint} did not answer hello within {timeout_s} s", timeout_s=timeout_s) from None
    return client
