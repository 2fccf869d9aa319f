"""One link as a client sees it, without I/O: calls in, bytes out; bytes in, answers, output and events sorted.

Both clients are this with a way to send and receive around it.

Rules
- `request` gives the bytes to send and a `Pending`; `receive` settles it. Hooks of a `Pending` run inside `receive`, before the
  next message is looked at, so that no output slips by between an answer and the handle made from it.
- `outgoing` holds what the client must send on its own account (a detach, see `inbox`); the owner sends it soon.
- Once broken, always broken: every pending call fails with the same error, and nothing is sent any more.
- What nobody attached or subscribed to is dropped, as is what this version does not know (docs/protocol.md N-1).
- Not thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from coworkd.client.feed import Feed
from coworkd.client.inbox import Inbox, read_output
from coworkd.client.stream_inbox import WINDOW_BYTES, StreamInbox
from coworkd.model.calls import ProcessAttached, Subscribed
from coworkd.model.errors import CoworkError, LimitExceeded, Unavailable
from coworkd.model.process import ExitRecord
from coworkd.wire import convert
from coworkd.wire.connection import Connection, Notification, Response
from coworkd.wire.fault import parse_fault
from coworkd.wire.limits import PROTOCOL_VERSION, LocalLimitError, RemoteProtocolError

S = TypeVar("S", bound=msgspec.Struct)
LOST_REMEDY = "connect again; commands go on in the guest, and attach() continues from the offset you have"


def read_answer(method: str, answer: Mapping[str, Any], kind: type[S]) -> S:
    """An answer or event as its type, unknown fields ignored; raises `Unavailable` where the guest speaks otherwise."""
    try:
        return convert.read_answer(answer, kind)
    except msgspec.ValidationError as error:
        raise Unavailable(
            f"the guest's answer to {method} cannot be read ({error}): are host and guest of versions that fit?",
            method=method,
        ) from error


class Pending:
    """One call that was sent. `done` is set once, then `result` or `error` is."""

    __slots__ = ("done", "error", "hook", "method", "refused", "request_id", "result", "unwanted")

    def __init__(self, method: str, request_id: int, hook: Callable[[dict[str, Any]], None] | None) -> None:
        self.method = method
        self.request_id = request_id
        self.hook = hook
        self.unwanted: Callable[[dict[str, Any]], None] | None = None
        """What is done with the answer instead, once nobody waits for it."""
        self.refused: Callable[[CoworkError], None] | None = None
        """What is done with an error."""
        self.done = False
        self.result: dict[str, Any] = {}
        self.error: CoworkError | None = None

    def answer(self) -> dict[str, Any]:
        """The result, or raise the error it was answered with."""
        if self.error is not None:
            raise self.error
        return self.result


class Core:
    """The state of one link. `broken` is the error of a link that is no more."""

    def __init__(self) -> None:
        self._connection = Connection("host")
        self._pending: dict[int, Pending] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._streams: dict[str, StreamInbox] = {}
        self.feed: Feed | None = None
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
        try:
            request_id, frame = self._connection.send_request(method, params)
        except LocalLimitError as error:
            raise LimitExceeded(
                f"{method} was not sent: {error.message}", stage="too_big", method=method, **error.details
            ) from error
        pending = Pending(method, request_id, hook)
        self._pending[request_id] = pending
        return pending, frame

    def hello(self, client: str, token: str | None) -> tuple[Pending, bytes]:
        """The first call of every link."""
        version = {"min": PROTOCOL_VERSION, "max": PROTOCOL_VERSION}
        params: dict[str, Any] = {"client": client, "protocol": version}
        if token is not None:
            params["token"] = token
        return self.request("hello", params, lambda _: self._connection.greeted())

    def abandon(self, pending: Pending) -> None:
        """Nobody waits any more: its answer is dropped when it comes. The id stays taken until then."""
        if pending.method != "hello":
            pending.hook = pending.unwanted

    # -- attached processes

    def start(self, params: Mapping[str, Any]) -> tuple[Pending, bytes, list[Inbox]]:
        """`process.start`; the list has the inbox once the call was answered, unless `attach` is false."""
        streams = ("stdout", "stderr") if params.get("tty") is None else ("tty",)
        made: list[Inbox] = []

        def attached(result: dict[str, Any]) -> None:
            made.append(self._adopt(Inbox(result["process"], dict.fromkeys(streams, 0))))

        hook = attached if params.get("attach", True) else None
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

        pending, frame = self.request("process.attach", {"process": process, **offsets}, attached)
        return pending, frame, made

    def drop(self, inbox: Inbox) -> None:
        """Nobody reads it any more: what comes for it is dropped."""
        if self._inboxes.get(inbox.process) is inbox:
            del self._inboxes[inbox.process]

    # -- streams

    def open_stream(self, method: str, params: Mapping[str, Any]) -> tuple[Pending, bytes, list[StreamInbox]]:
        """A call that answers with a `stream`, its `window` among `params` if it takes one; the list has its inbox once it was answered."""
        made: list[StreamInbox] = []

        def opened(result: dict[str, Any]) -> None:
            inbox = StreamInbox(result["stream"], params.get("window", WINDOW_BYTES))
            self._streams[inbox.stream] = inbox
            made.append(inbox)

        pending, frame = self.request(method, params, opened)
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
        pending, frame = self.request("stream.ack", {"stream": stream, "offset": offset})
        # Too many calls of the link at once: nobody else would say it again, and the stream would stand still.
        pending.refused = lambda error: self._acknowledge(stream, offset) if isinstance(error, LimitExceeded) else None
        self.outgoing.append(frame)

    def close_stream(self, inbox: StreamInbox) -> None:
        """Nobody reads or writes it any more: what comes for it is dropped. See `outgoing`."""
        inbox.close()
        if self._streams.pop(inbox.stream, None) is not None and self.broken is None:
            self._close_unseen(inbox.stream)

    def _close_unseen(self, stream: str) -> None:
        _, frame = self.request("stream.close", {"stream": stream})
        self.outgoing.append(frame)

    # -- published events

    def subscribe(self, feed: Feed) -> tuple[Pending, bytes]:
        """`events.subscribe` after the feed's last event; once answered, events go to `feed`."""

        def subscribed(result: dict[str, Any]) -> None:
            answer = read_answer("events.subscribe", result, Subscribed)
            feed.subscribed(answer.next, answer.missed)
            self.feed = feed

        params = {} if feed.last_seq is None else {"after": feed.last_seq}
        return self.request("events.subscribe", params, subscribed)

    def _adopt(self, inbox: Inbox) -> Inbox:
        self._inboxes[inbox.process] = inbox
        return inbox

    # -- what came

    def receive(self, data: bytes) -> None:
        """Take bytes that came; empty bytes are the end of the link. Never raises: see `broken`."""
        if self.broken is not None:
            return
        if not data:
            self.fail(self._reason or Unavailable(f"the link to the guest was closed: {LOST_REMEDY}"))
            return
        try:
            self._connection.receive_data(data)
            while (event := self._connection.next_event()) is not None:
                if isinstance(event, Response):
                    self._settle(event)
                elif isinstance(event, Notification):
                    self._sort(event.method, event.params)
        except RemoteProtocolError as error:
            self.fail(Unavailable(f"the guest broke the protocol: {error.message}", rule=error.rule))
        except Unavailable as error:
            self.fail(error)
        except (KeyError, TypeError, ValueError) as error:
            self.fail(Unavailable(f"the guest sent an event that cannot be read: {error!r}"))

    def fail(self, error: CoworkError) -> None:
        """The link is no more."""
        if self.broken is not None:
            return
        self.broken = error
        for pending in self._pending.values():
            pending.error = error
            pending.done = True
        self._pending.clear()
        self.outgoing.clear()

    def _settle(self, response: Response) -> None:
        pending = self._pending.pop(response.id)
        if response.error is not None:
            pending.error = parse_fault(response.error)
            if pending.refused is not None:
                pending.refused(pending.error)
        elif isinstance(response.result, dict):
            pending.result = response.result
            if pending.hook is not None:
                pending.hook(response.result)
        else:
            pending.error = Unavailable(f"{pending.method} was answered with something that is no map")
        pending.done = True

    def _sort(self, name: str, params: dict[str, Any]) -> None:
        if name == "process.output":
            process, stream, offset, data, eof = read_output(params)
            inbox = self._inboxes.get(process)
            if inbox is not None and inbox.feed_output(stream, offset, data, eof):
                _, frame = self.request("process.detach", {"process": process})
                self.outgoing.append(frame)
        elif name == "stream.data":
            receiver = self._streams.get(params["stream"])
            if receiver is not None:
                receiver.feed(params)
        elif name == "link.error":
            self._reason = parse_fault(params)
        elif name == "events.missed":
            if self.feed is not None:
                self.feed.missed += int(params["missed"])
        elif "seq" in params:
            if self.feed is not None:
                self.feed.feed(name, params)
        elif name == "process.exit":
            inbox = self._inboxes.get(params["process"])
            if inbox is not None:
                inbox.feed_exit(read_answer(name, params, ExitRecord))
