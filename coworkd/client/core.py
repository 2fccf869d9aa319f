"""One link as a client sees it, without I/O: calls in, bytes out; bytes in, answers, output and events sorted.

Both clients are this with a way to send and receive around it.

Rules
- `request` gives the bytes to send and a `Pending`; `receive` settles it. Hooks of a `Pending` run inside `receive`, before the
  next message is looked at, so that no output slips by between an answer and the handle made from it.
- `outgoing` holds what the client must send on its own account (a detach, see `inbox`); the owner sends it soon.
- Once broken, always broken: every pending call fails with the same error, and nothing is sent any more.
- A core that is `lasting` is `lost` instead, until `renew` gives it another link: there every process that was attached goes on
  from its next byte, events from the next one, and every call that was not answered is made again where it may be (`pending`).
  Streams belong to one link, and fail with it.
- What nobody attached or subscribed to is dropped, as is what this version does not know (docs/protocol.md N-1).
- Not thread-safe.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, read_output
from coworkd.client.pending import MUTATING, Pending, read_answer
from coworkd.client.repeating import are_of_one_coworkd
from coworkd.client.stream_inbox import WINDOW_BYTES, StreamInbox
from coworkd.model.calls import ProcessAttached, Subscribed
from coworkd.model.errors import CoworkError, LimitExceeded, Unavailable
from coworkd.model.process import ExitRecord
from coworkd.wire.connection import Connection, Notification, Response
from coworkd.wire.fault import parse_fault
from coworkd.wire.limits import PROTOCOL_VERSION, LocalLimitError, RemoteProtocolError

LOST_REMEDY = "connect again; commands go on in the guest, and attach() continues from the offset you have"


class Core:
    """The state of one link, or of several after one another. `broken` is the error of a link that is no more, for good."""

    def __init__(self) -> None:
        self._connection = Connection("host")
        self.lasting = False
        """Whether a link that ends is `lost`, and not `broken`."""
        self.lost: CoworkError | None = None
        """Why the last link ended, until `renew`."""
        self.link = 0
        """How many links there were before this one."""
        self._greeting: Mapping[str, Any] = {}
        """What the guest said of itself at the beginning of this link."""
        self._again: list[Pending] = []
        self._unacknowledged: dict[str, Inbox] = {}
        """Process → its inbox, where something came that was not acknowledged yet."""
        self._pending: dict[int, Pending] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._streams: dict[str, StreamInbox] = {}
        self.feed: Feed | None = None
        self.news: set[object] = set()
        """For whom something came with the last `receive`: calls, inboxes, the feed."""
        self.outgoing: deque[bytes] = deque()
        self.broken: CoworkError | None = None
        self._reason: CoworkError | None = None
        """What the guest said of the link before it closed it (`link.error`)."""

    # -- calls

    def request(
        self, method: str, params: Mapping[str, Any], hook: Callable[[dict[str, Any]], None] | None = None
    ) -> tuple[Pending, bytes]:
        """Return what to wait for and what to send.

        Raises `LimitExceeded` (`stage` `too_big`) where the call is larger than the guest takes, and then nothing happened;
        the link's error where it is broken.
        """
        if self.broken is not None:
            raise self.broken
        if self.lasting and method in MUTATING:
            params = {"request_id": secrets.token_hex(16), **params}
        pending = Pending(method, params, self.link, hook)
        if self.lost is not None:
            self._again.append(pending)
            return pending, b""
        return pending, self._say(pending)

    def _say(self, pending: Pending) -> bytes:
        try:
            pending.request_id, frame = self._connection.send_request(pending.method, pending.params)
        except LocalLimitError as error:
            raise LimitExceeded(
                f"{pending.method} was not sent: {error.message}",
                stage="too_big",
                method=pending.method,
                **error.details,
            ) from error
        self._pending[pending.request_id] = pending
        return frame

    def unheard(self, pending: Pending | None, error: Exception) -> None:
        """The bytes of a call could not be handed to its link. No guest has heard it where the kernel says that nobody is there any
        more, which it says of bytes that it has not taken.
        """
        refused = isinstance(error, ConnectionError) or isinstance(error.__cause__, ConnectionError)
        # On another link it was said again meanwhile.
        if pending is not None and refused and self.link == pending.link:
            pending.sent = False

    def _say_alone(
        self, method: str, params: Mapping[str, Any], hook: Callable[[dict[str, Any]], None] | None = None
    ) -> Pending:
        """A call that nobody waits for, about this link only. See `outgoing`."""
        pending, frame = self.request(method, params, hook)
        pending.repeatable = False
        self.outgoing.append(frame)
        return pending

    def hello(self, client: str, token: str | None, keepalive_s: float | None = None) -> tuple[Pending, bytes]:
        """The first call of every link; `keepalive_s` promises that something is said at least so often."""
        version = {"min": PROTOCOL_VERSION, "max": PROTOCOL_VERSION}
        params: dict[str, Any] = {"client": client, "protocol": version}
        if token is not None:
            params["token"] = token
        if keepalive_s is not None:
            params["keepalive_s"] = keepalive_s

        def greeted(result: dict[str, Any]) -> None:
            self._connection.greeted()
            self._greeting = result

        return self.request("hello", params, greeted)

    def ask_alive(self) -> None:
        """Have the guest say something. See `outgoing`."""
        self._say_alone("ping", {})

    # -- attached processes

    def start(self, params: Mapping[str, Any]) -> tuple[Pending, bytes, list[Inbox]]:
        """`process.start`; the list has the inbox once the call was answered, unless `attach` is false.

        A lasting link names the process itself, so that a start repeated to a coworkd that was restarted finds the first one there
        (`AlreadyExists` of a call that was made `elsewhere` before).
        """
        streams = ("stdout", "stderr") if params.get("tty") is None else ("tty",)
        made: list[Inbox] = []

        def attached(result: dict[str, Any]) -> None:
            inbox = self._adopt(Inbox(result["process"], dict.fromkeys(streams, 0)))
            made.append(inbox)
            if pending.repeated:  # the link that was attached may be the one that is no more
                self._go_on(inbox)

        hook = attached if params.get("attach", True) else None
        if self.lasting and params.get("id") is None:
            params = {**params, "id": f"p{secrets.token_hex(8)}"}
        if self.lasting:
            params = {**params, "acknowledge": True}
        pending, frame = self.request("process.start", params, hook)
        return pending, frame, made

    def attach(
        self, process: str, offsets: Mapping[str, int], inbox: Inbox | None = None
    ) -> tuple[Pending, bytes, list[Inbox]]:
        """`process.attach`; once answered, the list has a new inbox, or `inbox` which then goes on."""
        made: list[Inbox] = []

        def attached(result: dict[str, Any]) -> None:
            streams = read_answer("process.attach", result, ProcessAttached).streams
            if inbox is not None:
                inbox.resume()
                made.append(inbox)
            else:
                wanted = {name: offsets.get(name, kept.first) for name, kept in streams.items()}
                made.append(self._adopt(Inbox(process, wanted)))

        acknowledged = {"acknowledge": True} if self.lasting else {}
        pending, frame = self.request("process.attach", {"process": process, **offsets, **acknowledged}, attached)
        return pending, frame, made

    def _acknowledge_due(self) -> None:
        for process, inbox in tuple(self._unacknowledged.items()):
            if offsets := inbox.due():
                del self._unacknowledged[process]
                self._acknowledge_output(process, offsets)

    def _acknowledge_output(self, process: str, offsets: Mapping[str, int]) -> None:
        pending = self._say_alone("process.ack", {"process": process, **offsets})
        pending.refused = lambda error: (
            self._acknowledge_output(process, offsets) if isinstance(error, LimitExceeded) else None
        )

    def drop(self, inbox: Inbox) -> None:
        """Nobody reads it any more: what comes for it is dropped."""
        inbox.drop()
        for kept in (self._inboxes, self._unacknowledged):
            if kept.get(inbox.process) is inbox:
                del kept[inbox.process]

    # -- streams

    def open_stream(self, method: str, params: Mapping[str, Any]) -> tuple[Pending, bytes, list[StreamInbox]]:
        """A call that answers with a `stream`, its `window` among `params` if it takes one; the list has its inbox once it was answered."""
        made: list[StreamInbox] = []

        def opened(result: dict[str, Any]) -> None:
            inbox = StreamInbox(result["stream"], params.get("window", WINDOW_BYTES))
            self._streams[inbox.stream] = inbox
            made.append(inbox)

        pending, frame = self.request(method, params, opened)
        pending.repeatable = False
        pending.unwanted = lambda result: self._close_unseen(result["stream"])
        return pending, frame, made

    def acknowledge(self, inbox: StreamInbox) -> None:
        """Something was taken from `inbox`: let the guest send more where that is due. See `outgoing`."""
        offset = inbox.due()
        if offset is not None:
            self._acknowledge(inbox.stream, offset)

    def _acknowledge(self, stream: str, offset: int) -> None:
        if self.broken is not None or stream not in self._streams:
            return
        pending = self._say_alone("stream.ack", {"stream": stream, "offset": offset})
        # Too many calls of the link at once: nobody else would say it again, and the stream would stand still.
        pending.refused = lambda error: self._acknowledge(stream, offset) if isinstance(error, LimitExceeded) else None

    def close_stream(self, inbox: StreamInbox) -> None:
        """Nobody reads or writes it any more: what comes for it is dropped. See `outgoing`."""
        inbox.close()
        if self._streams.pop(inbox.stream, None) is not None and self.broken is None:
            self._close_unseen(inbox.stream)

    def _close_unseen(self, stream: str) -> None:
        self._say_alone("stream.close", {"stream": stream})

    # -- published events

    def subscribe(self, feed: Feed) -> tuple[Pending, bytes]:
        """`events.subscribe` after the feed's last event; once answered, events go to `feed`."""

        def subscribed(result: dict[str, Any]) -> None:
            answer = read_answer("events.subscribe", result, Subscribed)
            feed.subscribed(answer.next, answer.missed)
            self.feed = feed

        params = {} if feed.last_seq is None else {"after": feed.last_seq}
        return self.request("events.subscribe", params, subscribed)

    def unsubscribe(self) -> None:
        """Nobody reads the feed any more."""
        if self.feed is not None:
            self.feed.close()
        self.feed = None

    def _adopt(self, inbox: Inbox) -> Inbox:
        self._inboxes[inbox.process] = inbox
        return inbox

    # -- what came

    def receive(self, data: bytes) -> None:
        """Take bytes that came; empty bytes are the end of the link. Never raises: see `broken`."""
        self.news.clear()
        if self.broken is not None or self.lost is not None:
            return
        if not data:
            self.lose(self._reason or Unavailable(f"the link to the guest was closed: {LOST_REMEDY}"))
            return
        try:
            self._connection.receive_data(data)
            while (event := self._connection.next_event()) is not None:
                if isinstance(event, Response):
                    pending = self._pending.pop(event.id)
                    pending.settle(event)
                    self.news.add(pending)
                elif isinstance(event, Notification):
                    self._sort(event.method, event.params)
            self._acknowledge_due()
        except RemoteProtocolError as error:
            self.lose(Unavailable(f"the guest broke the protocol: {error.message}", rule=error.rule))
        except Unavailable as error:
            self.lose(error)
        except (KeyError, TypeError, ValueError) as error:
            self.lose(Unavailable(f"the guest sent an event that cannot be read: {error!r}"))

    def lose(self, error: CoworkError) -> None:
        """The link is no more: until `renew` where this core is lasting, else for good."""
        if not self.lasting:
            self.fail(error)
            return
        if self.broken is not None or self.lost is not None:
            return
        self.lost = error
        self.outgoing.clear()
        for pending in self._pending.values():
            if pending.repeatable:
                self._again.append(pending)
            else:
                pending.fail(error)
        self._pending.clear()
        self._unacknowledged.clear()
        for stream in self._streams.values():
            stream.lose(error)
        self._streams.clear()

    def renew(self, greeted: Core) -> None:
        """Go on over the link of `greeted`, which has said hello and nothing else. What is to be said there is in `outgoing`."""
        self._connection = greeted._connection
        same = are_of_one_coworkd(self._greeting, greeted._greeting)
        self._greeting = greeted._greeting
        self._reason = None
        self.lost = None
        self.link += 1
        again, self._again = self._again, []
        for inbox in self._inboxes.values():
            if not inbox.parked and not inbox.finished:
                self._go_on(inbox)
        if self.feed is not None and not any(pending.method == "events.subscribe" for pending in again):
            pending, frame = self.subscribe(self.feed)
            pending.repeatable = False
            self.outgoing.append(frame)
        for pending in again:
            if pending.repeat(same):
                try:
                    self.outgoing.append(self._say(pending))
                except LimitExceeded as error:
                    pending.fail(error)

    def _go_on(self, inbox: Inbox) -> None:
        """Attach an inbox from where it stopped. Refused, it is parked: whoever reads it attaches again, and hears why not."""
        params = {"process": inbox.process, "acknowledge": True, **inbox.positions()}
        pending = self._say_alone("process.attach", params)
        pending.refused = lambda error: self._park(inbox)

    def _park(self, inbox: Inbox) -> None:
        inbox.park()
        self.news.add(inbox)

    def fail(self, error: CoworkError) -> None:
        """The link is no more, for good."""
        if self.broken is not None:
            return
        self.broken = error
        for pending in (*self._pending.values(), *self._again):
            pending.fail(error)
        self._pending.clear()
        self._again.clear()
        self.outgoing.clear()

    def _sort(self, name: str, params: dict[str, Any]) -> None:
        if name == "process.output":
            process, stream, offset, data, eof = read_output(params)
            inbox = self._inboxes.get(process)
            if inbox is None:
                return
            self.news.add(inbox)
            if inbox.feed_output(stream, offset, data, eof):
                self._say_alone("process.detach", {"process": process})
            elif self.lasting:
                self._unacknowledged[process] = inbox
        elif name == "stream.data":
            receiver = self._streams.get(params["stream"])
            if receiver is not None:
                receiver.feed(params)
                self.news.add(receiver)
        elif name == "link.error":
            self._reason = parse_fault(params)
        elif name == "events.missed":
            if self.feed is not None:
                self.feed.missed += int(params["missed"])
        elif "seq" in params:
            if self.feed is not None:
                self.feed.feed(name, params)
                self.news.add(self.feed)
        elif name == "process.exit":
            inbox = self._inboxes.get(params["process"])
            if inbox is not None:
                inbox.feed_exit(read_answer(name, params, ExitRecord))
                self.news.add(inbox)
