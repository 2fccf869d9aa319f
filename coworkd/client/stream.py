"""A stream into the guest, as a blocking handle: bytes both ways, each way with an end of its own.

    with client.forward("work", 8000) as stream:
        stream.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
        stream.close_write()
        while data := stream.receive():
            sys.stdout.buffer.write(data)

Rules
- At most a window (512 KiB) waits here unread; then the other side is held back, and it alone.
- Leaving the `with` closes the stream; so does the end of the link, and nothing of it comes back.
- One thread may send while another receives.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from coworkd.client.stdin import RETRY_FIRST_S, chunk_at, next_pause_s
from coworkd.client.stream_inbox import StreamInbox
from coworkd.model.errors import DeadlineExceeded, LimitExceeded

if TYPE_CHECKING:
    from coworkd.client.sync import Client


class Stream:
    """One stream; made by `Client.forward`."""

    def __init__(self, client: Client, inbox: StreamInbox) -> None:
        self.name = inbox.stream
        self._client = client
        self._inbox = inbox
        self._sent = 0
        self._closed = False

    def receive(self, limit_bytes: int | None = None, *, timeout_s: float | None = None) -> bytes | None:
        """What has come, at most `limit_bytes`; empty at the end; None when `timeout_s` ran out.

        Raises what the guest says of a stream that was lost (`Unavailable`: reset, or its session is gone), and `Unavailable` where
        the link is gone.
        """
        return self._client.next_chunk(self._inbox, limit_bytes, timeout_s)

    def send_some(self, data: bytes) -> int:
        """Offer `data` once; how many of its first bytes were taken, maybe none after a second of waiting."""
        offered = chunk_at(data, 0)
        try:
            answer = self._client.stream_write(stream=self.name, offset=self._sent, data=offered)
        except LimitExceeded:  # too many calls of the link at once
            return 0
        count = answer.offset - self._sent
        self._sent = answer.offset
        return count

    def send(self, data: bytes, *, timeout_s: float | None = None) -> None:
        """Send all of `data`, waiting while the other side does not read.

        Raises `InvalidState` once the other side, or this one, is closed; `DeadlineExceeded`, and then some of it may be on its way.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        position, pause_s = 0, RETRY_FIRST_S
        while position < len(data):
            taken = self.send_some(chunk_at(data, position))
            position += taken
            if taken:
                pause_s = RETRY_FIRST_S
                continue
            if deadline is not None and time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"stream {self.name} took {position} of {len(data)} bytes within {timeout_s} s", position=position
                )
            time.sleep(pause_s)
            pause_s = next_pause_s(pause_s)

    def close_write(self) -> None:
        """The other side reads an end behind what was sent; receiving goes on."""
        self._client.stream_close_write(stream=self.name, offset=self._sent)

    def close(self) -> None:
        """End both directions at once. Idempotent; a link that is gone has closed it already."""
        if not self._closed:
            self._closed = True
            self._client.close_stream(self._inbox)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
