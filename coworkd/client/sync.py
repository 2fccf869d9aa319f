"""The blocking client: for programs without an event loop. Imports no trio.

    with connect("unix:///run/coworkd/coworkd.sock") as client:
        client.session_ensure(name="work")
        print(client.run("work", ["uname", "-a"]).stdout)

Rules
- There is no thread of its own: whoever waits for something reads the link for everybody, one thread at a time. Any number of
  threads may use one client.
- Nothing is read while nobody waits; a subscriber or an attached process that is not read for long slows this link only.
- An exception raised by a signal handler while a thread reads breaks the link; so does any that interrupts a send.
- Errors are `CoworkError`s, those of the guest with the class of their code. A link that drops raises `Unavailable`
  from every call that waits and every later one.
- Not so with `connect(…, reconnect_s=60)`: whoever waits then dials again, for so long, and goes on as if nothing had been: output
  and events from the next one, calls that were not answered made again with their `request_id`, once. Streams end with
  their link, and a guest that booted anew has none of the old processes (`NotFound`).
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from msgspec import Struct

from coworkd.client.core import LOST_REMEDY, Core, Pending, read_answer
from coworkd.client.dial import Stream as LinkStream
from coworkd.client.dial import dial
from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, Output, without_refused
from coworkd.client.process import Process
from coworkd.client.renewal import DIAL_S, SILENCE_S, Renewal, Silence, refuse_starting
from coworkd.client.stream import Stream
from coworkd.client.stream_inbox import WINDOW_BYTES, StreamInbox
from coworkd.client.transfer import Download, send_upload
from coworkd.client.verbs import Verbs
from coworkd.model.calls import FileDownloadOpened, HelloAnswer, ProcessStarted
from coworkd.model.errors import AlreadyExists, CoworkError, DeadlineExceeded, OutOfRange, Unavailable
from coworkd.model.event import Event
from coworkd.wire.convert import compose_answer
from coworkd.wire.endpoint import parse_endpoint

RECEIVE_BYTES = 256 * 1024
DEFAULT_TIMEOUT_S = 10.0


class Client(Verbs):
    """One link to a guest, blocking. Made by `connect`; `close` it, or use it in a `with`."""

    hello: HelloAnswer

    def __init__(self, stream: LinkStream, first: bytes = b"") -> None:
        """Take over a connected stream on which no call was made yet; call `greet` next. The client closes it."""
        self._stream = stream
        self._core = Core()
        if first:
            self._core.receive(first)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sending = threading.Lock()
        self._reading = False
        """Some thread reads the link, or makes it again."""
        self._silence = Silence()
        self._renewal = Renewal(0)
        self._redial: Callable[[float], Client] | None = None
        self.link_changed: Callable[[CoworkError | None], None] = lambda error: None
        """Told why a link was lost that is made again, and None when there is one. It must not call the client."""

    def greet(self, client_name: str, token: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> HelloAnswer:
        """Say hello, once. Raises `Unauthenticated`, `InvalidState` (no common version), `DeadlineExceeded`, `Unavailable`."""
        with self._lock:
            pending, frame = self._core.hello(client_name, token)
        self.hello = read_answer("hello", self._finish(pending, frame, timeout_s), HelloAnswer)
        return self.hello

    # -- calls

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Call any method and return its answer as it came.

        Raises the error it was answered with; `LimitExceeded` (nothing was sent) for a call over 1 MiB; `DeadlineExceeded`
        where `timeout_s` ran out here, and then the call may still happen; `Unavailable` where the link is gone.
        """
        with self._lock:
            pending, frame = self._core.request(method, params or {})
        return self._finish(pending, frame, timeout_s)

    # -- commands

    def start_process(self, request: Struct) -> Process:
        """What `start` does, from a ready `ProcessStart`."""
        with self._lock:
            pending, frame, made = self._core.start(compose_answer(request))
        try:
            started = read_answer("process.start", self._finish(pending, frame, None), ProcessStarted)
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
        with self._lock:
            pending, frame, made = self._core.attach(process, offsets)
        self._finish(pending, frame, None)
        return Process(self, ProcessStarted(process=process, pid=info.pid or 0, started_at=info.started_at), made[0])

    def events(self, *, after: int | None = None) -> Subscription:
        """Subscribe to the published events after `after`, or to what comes next. One subscription a link."""
        with self._lock:
            feed = Feed(after)
            pending, frame = self._core.subscribe(feed)
        self._finish(pending, frame, None)
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
        with self._lock:
            pending, frame, made = self._core.open_stream(method, params)
        try:
            answer = self._finish(pending, frame, None)
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
        self._redial, self._renewal, self._core.lasting = redial, Renewal(limit_s), True

    @property
    def broken(self) -> CoworkError | None:
        """Why the link is no more, or None."""
        return self._core.broken

    @property
    def renewals(self) -> int:
        """How often the link was made again."""
        return self._core.link

    def close(self) -> None:
        """End the link; calls that wait in other threads raise `Unavailable`. Idempotent."""
        with self._lock:
            self._core.fail(Unavailable("this client was closed"))
            self._changed.notify_all()
        _hang_up(self._stream)
        self._stream.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what `Process` and `Subscription` stand on

    def next_output(self, inbox: Inbox, timeout_s: float | None = None) -> Output | None:
        """The next piece of an inbox; None when it is finished or `timeout_s` ran out. For `Process`."""
        deadline = _deadline(timeout_s)
        while True:
            with self._lock:
                if (piece := inbox.take()) is not None:
                    return piece
                if not inbox.parked:
                    in_time = self._read_until(lambda: inbox.waiting or inbox.finished or inbox.parked, deadline)
                    if not in_time or inbox.finished:
                        return None
                    continue
            self._attach_again(inbox)

    def next_event(self, feed: Feed, timeout_s: float | None = None) -> Event | None:
        """The next event of a feed; None when `timeout_s` ran out. For `Subscription`."""
        deadline = _deadline(timeout_s)
        while True:
            with self._lock:
                if (event := feed.take()) is not None:
                    return event
                if not feed.parked:
                    if not self._read_until(lambda: feed.waiting, deadline):
                        return None
                    continue
                pending, frame = self._core.subscribe(feed)
            self._finish(pending, frame, None)

    def drop(self, inbox: Inbox) -> None:
        """Throw away what still comes for it. For `Process`."""
        with self._lock:
            self._core.drop(inbox)

    def drop_feed(self) -> None:
        """No link that comes is to be asked for events. For `Subscription`."""
        with self._lock:
            self._core.unsubscribe()

    def next_chunk(self, inbox: StreamInbox, limit_bytes: int | None, timeout_s: float | None) -> bytes | None:
        """The next bytes of a stream, empty at its end; None when `timeout_s` ran out. For `Stream`."""
        with self._lock:
            if not self._read_until(lambda: inbox.waiting, _deadline(timeout_s)):
                return None
            data = inbox.take(limit_bytes)
            self._core.acknowledge(inbox)
            self._send_outgoing()
        return data

    def close_stream(self, inbox: StreamInbox) -> None:
        """Close a stream of this link; nothing is waited for. For `Stream`."""
        with self._lock:
            self._core.close_stream(inbox)
            self._send_outgoing()

    def _attach_again(self, inbox: Inbox) -> None:
        """Go on where a parked inbox stopped; what the guest no longer has shows as a gap."""
        offsets = inbox.positions()
        while inbox.parked:
            with self._lock:
                pending, frame, _ = self._core.attach(inbox.process, offsets, inbox)
            try:
                self._finish(pending, frame, None)
            except OutOfRange as error:
                offsets = without_refused(offsets, error)

    def _finish(self, pending: Pending, frame: bytes, timeout_s: float | None) -> dict[str, Any]:
        self._send(frame, pending.link, pending)
        with self._lock:
            if not self._read_until(lambda: pending.done, _deadline(timeout_s)):
                self._core.abandon(pending)
                raise DeadlineExceeded(
                    f"{pending.method} was not answered within {timeout_s} s; it may still happen", timeout_s=timeout_s
                )
        return pending.answer()

    def _send(self, frame: bytes, link: int, pending: Pending | None = None) -> None:
        """Send what was composed for `link`, perhaps a call; on another one it was said again already, or will be."""
        try:
            with self._sending:
                if link == self._core.link and self._core.lost is None:
                    self._hand_over(frame, pending)
        except OSError as error:
            with self._lock:
                self._lose(error, link)
        except BaseException:
            with self._lock:
                self._lose(InterruptedError("interrupted while sending"), link)
            raise

    def _hand_over(self, frame: bytes, pending: Pending | None) -> None:
        if pending is not None:
            pending.sent = True
        try:
            self._stream.sendall(frame)
        except OSError as error:
            self._core.unheard(pending, error)
            raise

    def _lose(self, error: OSError, link: int) -> None:
        """That link broke. Called with the lock held."""
        if link == self._core.link:
            self._core.lose(Unavailable(f"the link to the guest broke ({error}): {LOST_REMEDY}", errno=error.errno))
            _hang_up(self._stream)  # whoever still sends on it ends
            self._changed.notify_all()

    def _read_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Read the link until `ready()`; False when the deadline passed. Raises the link's error where it is broken.

        Called and left with the lock held.
        """
        while not ready():
            if self._core.broken is not None:
                raise self._core.broken
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            if self._reading:
                self._changed.wait(left_s)
            elif self._core.lost is not None:
                self._renew(left_s)
            else:
                self._read_once(left_s)
        return True

    def _read_once(self, timeout_s: float | None) -> None:
        """Read once, for every thread that waits. The lock is held before and after, not while reading."""
        self._reading = True
        link = self._core.link
        data: bytes | None = None
        lost: OSError | None = None
        self._lock.release()
        try:
            data = self._receive(min(SILENCE_S, timeout_s or SILENCE_S) if self._core.lasting else timeout_s)
        except OSError as error:
            lost = error
        except BaseException:
            # An exception out of a signal handler: what was read at that moment may be lost, and the link with it.
            lost = InterruptedError("interrupted while reading")
            raise
        finally:
            self._lock.acquire()
            self._reading = False
            self._changed.notify_all()
            if lost is not None:
                self._lose(lost, link)
        if data is not None:
            self._silence.heard()
            self._core.receive(data)
        elif self._core.lasting:
            self._judge_silence(time.monotonic(), link)
        self._send_outgoing()

    def _judge_silence(self, now: float, link: int) -> None:
        """Nothing came, though somebody looked."""
        self._silence.looked(now)
        if self._silence.dead(now):
            self._silence.heard()
            self._lose(TimeoutError(f"it has not answered a ping for {SILENCE_S:g} s"), link)
        elif self._silence.ask(now):
            self._core.ask_alive()

    def _renew(self, timeout_s: float | None) -> None:
        """Try once to make the link again, for every thread that waits. The lock is held before and after, not meanwhile."""
        if self._redial is None:
            raise RuntimeError("only a client that is kept can lose a link and go on")
        self._reading = True
        if self._renewal.lost(time.monotonic()):
            self.link_changed(self._core.lost)
        left_s = DIAL_S if timeout_s is None else min(DIAL_S, timeout_s)
        self._lock.release()
        fresh: Client | None = None
        refused: CoworkError | None = None
        try:
            time.sleep(min(self._renewal.pause_s(), left_s))
            fresh = self._redial(left_s)
        except CoworkError as error:
            refused = error
        finally:
            if fresh is not None:
                self._sending.acquire()
            self._lock.acquire()
            self._reading = False
            if fresh is not None:
                self._take_over(fresh)
                self._sending.release()
            elif refused is not None and self._renewal.over(time.monotonic(), refused):
                self._core.fail(refused)
            self._changed.notify_all()
        self._send_outgoing()

    def _take_over(self, fresh: Client) -> None:
        """Go on over the link of `fresh`. Called with both locks held: nothing composed for the old link is sent on the new one."""
        if self._core.broken is not None:
            fresh.close()
            return
        self._stream.close()
        self._stream, self.hello = fresh._stream, fresh.hello
        self._core.renew(fresh._core)
        self._renewal.renewed()
        self._silence.heard()
        self.link_changed(None)

    def _send_outgoing(self) -> None:
        """Send what the core wants to say. The lock is held before and after, not while sending."""
        if not self._core.outgoing:
            return
        frames, link = b"".join(self._core.outgoing), self._core.link
        self._core.outgoing.clear()
        self._lock.release()
        try:
            self._send(frames, link)
        finally:
            self._lock.acquire()

    def _receive(self, timeout_s: float | None) -> bytes | None:
        """What came, b"" at the end, None when nothing came in time."""
        if timeout_s is not None:
            poll = select.poll()
            poll.register(self._stream.fileno(), select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                return None
        return self._stream.recv(RECEIVE_BYTES)


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
        client = Client(dialled.stream, dialled.first)
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


def _hang_up(stream: LinkStream) -> None:
    """Wake whoever reads or writes it."""
    if isinstance(stream, socket.socket):
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s
