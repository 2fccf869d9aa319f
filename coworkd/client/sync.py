"""The blocking client: for programs without an event loop. Imports no trio.

    with connect("unix:///run/coworkd/coworkd.sock") as client:
        client.session_ensure(name="work")
        print(client.run("work", ["uname", "-a"]).stdout)

Rules
- Any number of threads may use one client; `link` says how they share its link, which nobody reads while none waits, and what breaks it.
- Errors are `CoworkError`s, those of the guest with the class of their code. A link that drops raises `Unavailable`
  from every call that waits and every later one.
- Not so with `connect(…, reconnect_s=60)`: whoever waits then dials again, for so long, and goes on as if nothing had been: output
  and events from the next one, calls that were not answered made again with their `request_id`, once. Streams end with
  their link, and a guest that booted anew has none of the old processes (`NotFound`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from msgspec import Struct

from coworkd.client.dial import Stream as LinkStream
from coworkd.client.dial import dial
from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, Output, without_refused
from coworkd.client.link import Link, deadline_in
from coworkd.client.pending import read_answer
from coworkd.client.process import Process
from coworkd.client.renewal import refuse_starting
from coworkd.client.stream import Stream
from coworkd.client.stream_inbox import WINDOW_BYTES, StreamInbox
from coworkd.client.transfer import Download, send_upload
from coworkd.client.verbs import Verbs
from coworkd.model.calls import FileDownloadOpened, HelloAnswer, ProcessStarted
from coworkd.model.errors import AlreadyExists, CoworkError, OutOfRange, Unavailable
from coworkd.model.event import Event
from coworkd.wire.convert import compose_answer
from coworkd.wire.endpoint import parse_endpoint

DEFAULT_TIMEOUT_S = 10.0


class Client(Verbs):
    """One link to a guest, blocking. Made by `connect`; `close` it, or use it in a `with`."""

    def __init__(self, stream: LinkStream, first: bytes = b"") -> None:
        """Take over a connected stream on which no call was made yet; call `greet` next. The client closes it."""
        self._link = Link(stream, first)

    def greet(self, client_name: str, token: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> HelloAnswer:
        """Say hello, once. Raises `Unauthenticated`, `InvalidState` (no common version), `DeadlineExceeded`, `Unavailable`."""
        return self._link.greet(client_name, token, timeout_s)

    @property
    def hello(self) -> HelloAnswer:
        """What the guest said of itself at the beginning of this link."""
        return self._link.hello

    # -- calls

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Call any method and return its answer as it came.

        Raises the error it was answered with; `LimitExceeded` (nothing was sent) for a call over 1 MiB; `DeadlineExceeded`
        where `timeout_s` ran out here, and then the call may still happen; `Unavailable` where the link is gone.
        """
        with self._link.lock:
            pending, frame = self._link.core.request(method, params or {})
        return self._link.finish(pending, frame, timeout_s)

    # -- commands

    def start_process(self, request: Struct) -> Process:
        """What `start` does, from a ready `ProcessStart`."""
        with self._link.lock:
            pending, frame, made = self._link.core.start(compose_answer(request))
        try:
            started = read_answer("process.start", self._link.finish(pending, frame, None), ProcessStarted)
        except AlreadyExists:
            if not pending.elsewhere:
                raise
            return self.attach(pending.params["id"])  # a coworkd that was restarted knows the command, but not the call
        return Process(self, started, made[0] if made else None)

    def attach(
        self, process: str, *, stdout: int | None = None, stderr: int | None = None, tty: int | None = None
    ) -> Process:
        """Attach this link to a process, each stream from its offset; with none given all begin at the oldest byte kept.

        Raises `NotFound`, `OutOfRange` (an offset that is no longer, or not yet, there).
        """
        given = {"stdout": stdout, "stderr": stderr, "tty": tty}
        offsets = {name: offset for name, offset in given.items() if offset is not None}
        info = self.process_get(process=process)
        with self._link.lock:
            pending, frame, made = self._link.core.attach(process, offsets)
        self._link.finish(pending, frame, None)
        return Process(self, ProcessStarted(process=process, pid=info.pid or 0, started_at=info.started_at), made[0])

    def events(self, *, after: int | None = None) -> Subscription:
        """Subscribe to the published events after `after`, or to what comes next. One subscription a link."""
        with self._link.lock:
            feed = Feed(after)
            pending, frame = self._link.core.subscribe(feed)
        self._link.finish(pending, frame, None)
        return Subscription(self, feed)

    # -- streams

    def forward(self, session: str, port: int, *, window: int = WINDOW_BYTES) -> Stream:
        """A stream to a port that a session listens on. Raises `NotFound`, `InvalidState` (nobody listens), `LimitExceeded`."""
        return self._open_stream("forward.open", {"session": session, "port": port, "window": window})[0]

    def upload(
        self,
        session: str,
        path: str | bytes,
        data: bytes | Iterable[bytes],
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
        stream, _ = self._open_stream(
            "file.upload", {name: value for name, value in params.items() if value is not None}
        )
        return send_upload(stream, data)

    def download(self, session: str, path: str | bytes, *, tar: bool = False, window: int = WINDOW_BYTES) -> Download:
        """The bytes of a file of a session, or with `tar` an archive of what is there."""
        params = {"session": session, "path": path, "tar": tar, "window": window}
        stream, answer = self._open_stream("file.download", params)
        return Download(stream, read_answer("file.download", answer, FileDownloadOpened))

    def _open_stream(self, method: str, params: Mapping[str, Any]) -> tuple[Stream, dict[str, Any]]:
        with self._link.lock:
            pending, frame, made = self._link.core.open_stream(method, params)
        try:
            answer = self._link.finish(pending, frame, None)
        except BaseException:
            for inbox in made:
                self.close_stream(inbox)
            raise
        return Stream(self, made[0]), answer

    # -- the link

    def keep(self, redial: Callable[[float], Client], limit_s: float) -> None:
        """From now on a link that is lost is made again: `redial` gives another client, greeted and unused, within the seconds it is
        given, or raises a `CoworkError`; tried for `limit_s`. See `connect`.
        """
        self._link.keep(lambda within_s: redial(within_s)._link, limit_s)

    @property
    def link_changed(self) -> Callable[[CoworkError | None], None]:
        """Told why a link was lost that is made again, and None when there is one. It must not call the client."""
        return self._link.changed

    @link_changed.setter
    def link_changed(self, told: Callable[[CoworkError | None], None]) -> None:
        self._link.changed = told

    @property
    def broken(self) -> CoworkError | None:
        """Why the link is no more, or None."""
        return self._link.core.broken

    @property
    def renewals(self) -> int:
        """How often the link was made again."""
        return self._link.core.link

    def close(self) -> None:
        """End the link; calls that wait in other threads raise `Unavailable`. Idempotent."""
        self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what `Process` and `Subscription` stand on

    def next_output(self, inbox: Inbox, timeout_s: float | None = None) -> Output | None:
        """The next piece of an inbox; None when it is finished or `timeout_s` ran out. For `Process`."""
        deadline = deadline_in(timeout_s)
        while True:
            with self._link.lock:
                if (piece := inbox.take()) is not None:
                    return piece
                if not inbox.parked:
                    in_time = self._link.read_until(lambda: inbox.waiting or inbox.finished or inbox.parked, deadline)
                    if not in_time or inbox.finished:
                        return None
                    continue
            self._attach_again(inbox)

    def next_event(self, feed: Feed, timeout_s: float | None = None) -> Event | None:
        """The next event of a feed; None when `timeout_s` ran out. For `Subscription`."""
        deadline = deadline_in(timeout_s)
        while True:
            with self._link.lock:
                if (event := feed.take()) is not None:
                    return event
                if not feed.parked:
                    if not self._link.read_until(lambda: feed.waiting, deadline):
                        return None
                    continue
                pending, frame = self._link.core.subscribe(feed)
            self._link.finish(pending, frame, None)

    def drop(self, inbox: Inbox) -> None:
        """Throw away what still comes for it. For `Process`."""
        with self._link.lock:
            self._link.core.drop(inbox)
            self._link.wake()

    def drop_feed(self) -> None:
        """No link that comes is to be asked for events. For `Subscription`."""
        with self._link.lock:
            self._link.core.unsubscribe()
            self._link.wake()

    def next_chunk(self, inbox: StreamInbox, limit_bytes: int | None, timeout_s: float | None) -> bytes | None:
        """The next bytes of a stream, empty at its end; None when `timeout_s` ran out. For `Stream`."""
        with self._link.lock:
            if not self._link.read_until(lambda: inbox.waiting, deadline_in(timeout_s)):
                return None
            data = inbox.take(limit_bytes)
            self._link.core.acknowledge(inbox)
            self._link.send_outgoing()
        return data

    def close_stream(self, inbox: StreamInbox) -> None:
        """Close a stream of this link; nothing is waited for. For `Stream`."""
        with self._link.lock:
            self._link.core.close_stream(inbox)
            self._link.wake()
            self._link.send_outgoing()

    def _attach_again(self, inbox: Inbox) -> None:
        """Go on where a parked inbox stopped; what the guest no longer has shows as a gap."""
        offsets = inbox.positions()
        while inbox.parked:
            with self._link.lock:
                pending, frame, _ = self._link.core.attach(inbox.process, offsets, inbox)
            try:
                self._link.finish(pending, frame, None)
            except OutOfRange as error:
                offsets = without_refused(offsets, error)


class Subscription:
    """The published events of a guest, in order. One a link; `close` ends it."""

    def __init__(self, client: Client, feed: Feed) -> None:
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

    def read(self, *, timeout_s: float | None = None) -> Event | None:
        """The next event, or None when `timeout_s` ran out. Raises `Unavailable` where the link is gone."""
        return self._client.next_event(self._feed, timeout_s)

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.read()
            if event is not None:
                yield event

    def close(self) -> None:
        """Unsubscribe."""
        self._client.drop_feed()
        self._client.events_unsubscribe()


def connect(
    uri: str,
    *,
    token: str | None = None,
    client_name: str = "coworkd-client",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    reconnect_s: float = 0,
) -> Client:
    """Connect to a guest and say hello; the caller closes the client.

    `uri` is `unix:///PATH`, `vsock://CID:PORT`, `hybrid:///PATH?port=N` or `virtio:///PATH`. `timeout_s` bounds connecting and
    hello. With `reconnect_s` a link that is lost later is made again, tried for so long each time. Raises `InvalidParams` (no
    endpoint), `Unavailable`, `Unauthenticated`, `InvalidState` (no common version), `DeadlineExceeded`.
    """
    endpoint = parse_endpoint(uri)

    def link(within_s: float, *, again: bool = True) -> Client:
        deadline = time.monotonic() + within_s
        dialled = dial(endpoint, timeout_s=within_s)
        try:
            client = Client(dialled.stream, dialled.first)
        except OSError as error:
            dialled.stream.close()
            raise Unavailable(
                f"this program has no descriptor left for its link to {uri}: {error.strerror}; close some, or raise its limit",
                errno=error.errno,
            ) from error
        try:
            client.greet(client_name, token, timeout_s=max(0.001, deadline - time.monotonic()))
            if again:
                refuse_starting(client.hello)
        except BaseException:
            client.close()
            raise
        return client

    client = link(timeout_s, again=False)
    if reconnect_s > 0:
        client.keep(link, reconnect_s)
    return client
