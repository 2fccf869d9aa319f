"""One link's view of one process: what its writer pulls, stream after stream, and the exit behind it.

Rules
- Streams take turns; frames of one stream come in order; `eof` is on the last frame of a stream, once.
- The exit is a frame of this source, so it cannot overtake output: it comes when every byte the exit record counts was
  handed out, or is gone, and every stream that ended was told to have ended.
- Bytes that went before this reader had them are told: the frame behind them has `dropped: [from, to]`, its `offset` being `to`.
- A reader whose host acknowledges keeps its place in the spools where that host is known to be, not where it has been sent to: what is
  on its way when a link breaks was not taken. Its place is held when it goes without having left (`held`).
- A reader never waits and never holds bytes: what the link does not pull stays in the spool.

Encoding is the caller's (`EncodeOutput`, `EncodeNotification`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import trio

from coworkd.model.errors import OutOfRange
from coworkd.model.ports import LinkPort
from coworkd.model.process import ExitRecord, StreamName
from coworkd.services.spools import Spool

Buffers = list[bytes | memoryview]
EncodeOutput = Callable[[str, StreamName, int, bytes, bool], Buffers]
"""`(process, stream, offset, data, eof)` → the encoded `process.output` notification."""
EncodeNotification = Callable[[str, Mapping[str, Any]], Buffers]
"""`(method, params)` → any encoded notification."""


class _Cursor:
    """The position of a reader in one stream; a `spools.Follower`."""

    def __init__(self, stream: StreamName, spool: Spool, offset: int, more: Callable[[], None]) -> None:
        self.stream = stream
        self.spool = spool
        self.offset = offset
        """What is taken: sent, or acknowledged where that is done."""
        self.sent = offset
        self.eof_told = False
        self.more = more

    def acknowledge(self, offset: int) -> None:
        """Everything before `offset` has come. Raises `OutOfRange` for what was not sent."""
        if offset > self.sent:
            raise OutOfRange(
                f"{self.stream} was sent up to {self.sent}, {offset} cannot have come",
                stream=self.stream,
                end=self.sent,
            )
        self.offset = max(self.offset, offset)
        self.spool.delivered(self.offset)

    def next(self, limit_bytes: int, *, acknowledged: bool) -> tuple[int, int, bytes, bool] | None:
        """(where it was, offset, data, eof), or None where there is nothing now."""
        was = self.sent
        offset, data = self.spool.read(was, limit_bytes)
        eof = self.spool.eof and offset + len(data) == self.spool.end
        if not data and (not eof or self.eof_told):
            return None
        self.sent = offset + len(data)
        self.eof_told = eof
        if not acknowledged:
            self.offset = self.sent
            self.spool.delivered(self.offset)
        return was, offset, data, eof


class ProcessReader:
    """Implements `ports.Frames` for one process on one link."""

    def __init__(
        self,
        process: str,
        link: LinkPort,
        streams: Mapping[StreamName, tuple[Spool, int]],
        *,
        encode_output: EncodeOutput,
        encode_notification: EncodeNotification,
        gone: Callable[[ProcessReader], None],
        acknowledged: bool = False,
    ) -> None:
        """`streams` maps each stream to its spool and the offset to begin at. `gone` is called once, at `detached` or when
        all was handed out, which detaches it. With `acknowledged` it counts what `acknowledge` says, and not what it has sent.
        """
        self.link = link
        self._process = process
        self._encode_output = encode_output
        self._encode_notification = encode_notification
        self._gone = gone
        self._record: ExitRecord | None = None
        self._exit_params: Mapping[str, Any] = {}
        self._finished = False
        self._acknowledged = acknowledged
        self.held = False
        """It went with its link, and its place in the spools is kept until `release`."""
        self.begun = {name: offset for name, (_, offset) in streams.items()}
        """Where it began."""
        self._cursors = deque(_Cursor(name, spool, offset, self._wake) for name, (spool, offset) in streams.items())
        for cursor in self._cursors:
            cursor.spool.follow(cursor)

    def next_frame(self, limit_bytes: int, /) -> Buffers | None:
        for _ in range(len(self._cursors)):
            cursor = self._cursors[0]
            self._cursors.rotate(-1)
            frame = cursor.next(limit_bytes, acknowledged=self._acknowledged)
            if frame is not None:
                was, offset, data, eof = frame
                if offset > was:
                    return self._encode_gap(cursor.stream, was, offset, data, eof)
                return self._encode_output(self._process, cursor.stream, offset, data, eof)
        if self._record is None or self._finished or not self._all_told(self._record):
            return None
        self._finish()
        # Not now: the link is about to go on to the next of its sources.
        trio.lowlevel.current_trio_token().run_sync_soon(self.link.detach, self)
        return self._encode_notification("process.exit", self._exit_params)

    def _encode_gap(self, stream: StreamName, was: int, offset: int, data: bytes, eof: bool) -> Buffers:
        told: dict[str, Any] = {"process": self._process, "stream": stream, "offset": offset, "dropped": [was, offset]}
        return self._encode_notification("process.output", {**told, **({"eof": True} if eof else {}), "data": data})

    @property
    def acknowledged(self) -> bool:
        """Whether its host says what it has."""
        return self._acknowledged

    def presume_sent(self) -> None:
        """Its host may have been sent all there is, by a coworkd before us."""
        for cursor in self._cursors:
            cursor.sent = cursor.spool.end

    def exited(self, record: ExitRecord, params: Mapping[str, Any]) -> None:
        """The process has ended: `params` is what `process.exit` says, once the output before it was handed out."""
        self._record = record
        self._exit_params = params
        self._wake()

    def leave(self) -> None:
        """Detach from the link, attached or not."""
        self._acknowledged = False  # it goes on purpose: nothing is kept for it
        self.link.detach(self)
        self.detached()
        self.release()

    def detached(self) -> None:
        if not self._finished:
            self.held = self._acknowledged
            self._finish()

    def acknowledge(self, offsets: Mapping[StreamName, int]) -> None:
        """All before these offsets has come. Raises `OutOfRange` for what was not sent."""
        for cursor in self._cursors:
            if cursor.stream in offsets:
                cursor.acknowledge(offsets[cursor.stream])

    def holds(self, offsets: Mapping[StreamName, int]) -> bool:
        """Whether a reader that begins at `offsets` can be this one come back."""
        return self.held and all(
            cursor.offset <= offsets.get(cursor.stream, cursor.offset) <= cursor.sent for cursor in self._cursors
        )

    def release(self) -> None:
        """Keep the place no longer. Idempotent."""
        if self.held:
            self.held = False
            self._unfollow()

    def _wake(self) -> None:
        self.link.wake(self)

    def _all_told(self, record: ExitRecord) -> bool:
        return all(
            cursor.sent >= record.bytes[cursor.stream] and (cursor.eof_told or not cursor.spool.eof)
            for cursor in self._cursors
        )

    def _finish(self) -> None:
        self._finished = True
        if not self.held:
            self._unfollow()
        self._gone(self)

    def _unfollow(self) -> None:
        for cursor in self._cursors:
            cursor.spool.unfollow(cursor)
