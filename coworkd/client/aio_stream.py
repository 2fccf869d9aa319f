"""A stream into the guest, for trio. Rules and errors as in `stream`.

    async with await client.forward("work", 8000) as stream:
        await stream.send(b"ping")
        print(await stream.receive())

Cancelling leaves the link whole: what is being sent is sent to its end first. One task may send while another receives.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import trio

from coworkd.client.pending import read_answer
from coworkd.client.stdin import RETRY_FIRST_S, chunk_at, next_pause_s
from coworkd.client.stream_inbox import StreamInbox
from coworkd.model.calls import StreamOffset
from coworkd.model.errors import LimitExceeded

if TYPE_CHECKING:
    from coworkd.client.aio import AsyncClient


class AsyncStream:
    """One stream; made by `AsyncClient.forward`."""

    def __init__(self, client: AsyncClient, inbox: StreamInbox) -> None:
        self.name = inbox.stream
        self._client = client
        self._inbox = inbox
        self._sent = 0
        self._closed = False

    async def receive(self, limit_bytes: int | None = None) -> bytes:
        """What has come, at most `limit_bytes`; empty at the end. Cancelled, nothing is lost.

        Raises what the guest says of a stream that was lost (`Unavailable`: reset, or its session is gone), and `Unavailable` where
        the link is gone.
        """
        return await self._client.next_chunk(self._inbox, limit_bytes)

    async def send_some(self, data: bytes) -> int:
        """Offer `data` once; how many of its first bytes were taken, maybe none after a second of waiting.

        Cancelled while the guest's answer is waited for, how much was taken is not known: close the stream then.
        """
        params = {"stream": self.name, "offset": self._sent, "data": chunk_at(data, 0)}
        try:
            answer = read_answer("stream.write", await self._client.call_whole("stream.write", params), StreamOffset)
        except LimitExceeded:  # too many calls of the link at once
            return 0
        count = answer.offset - self._sent
        self._sent = answer.offset
        return count

    async def send(self, data: bytes) -> None:
        """Send all of `data`, waiting while the other side does not read. Raises `InvalidState` once either side is closed."""
        position, pause_s = 0, RETRY_FIRST_S
        while position < len(data):
            taken = await self.send_some(chunk_at(data, position))
            position += taken
            if taken:
                pause_s = RETRY_FIRST_S
                continue
            await trio.sleep(pause_s)
            pause_s = next_pause_s(pause_s)

    async def close_write(self) -> None:
        """The other side reads an end behind what was sent; receiving goes on."""
        await self._client.call_whole("stream.close_write", {"stream": self.name, "offset": self._sent})

    async def aclose(self) -> None:
        """End both directions at once. Idempotent; a link that is gone has closed it already."""
        if not self._closed:
            self._closed = True
            await self._client.close_stream(self._inbox)

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
