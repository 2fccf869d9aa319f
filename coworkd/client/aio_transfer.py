"""Files as streams, for trio. Rules and errors as in `transfer`.

    await client.upload("work", "notes.txt", b"hello")
    async with await client.download("work", "notes.txt") as download:
        async for data in download: ...

Cancelled, an upload leaves no file behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from types import TracebackType

from coworkd.client.aio_stream import AsyncStream
from coworkd.model.calls import FileDownloadOpened
from coworkd.model.errors import CoworkError, InvalidState

Pieces = bytes | Iterable[bytes] | AsyncIterable[bytes]


async def send_upload(stream: AsyncStream, data: Pieces) -> int:
    """Send all of `data`, and return its size once the guest has it in place; closes the stream. Raises what the guest says."""
    async with stream:
        size = 0
        refused: CoworkError | None = None
        try:
            async with aclosing(_pieces(data)) as pieces:
                async for piece in pieces:
                    await stream.send(piece)
                    size += len(piece)
            await stream.close_write()
        except InvalidState as error:
            # The guest takes no more, and says why at the stream's other end.
            refused = error
        while await stream.receive():
            pass
        if refused is not None:
            raise refused
        return size


async def _pieces(data: Pieces) -> AsyncGenerator[bytes, None]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, AsyncIterable):
        async for piece in data:
            yield piece
    else:
        for piece in data:
            yield piece


class AsyncDownload:
    """The bytes of a file, or of an archive, as they come. Use it in an `async with`.

    `size`, `mode` and `mtime_ns` are the file's, None of an archive.
    """

    def __init__(self, stream: AsyncStream, opened: FileDownloadOpened) -> None:
        self.size = opened.size
        self.mode = opened.mode
        self.mtime_ns = opened.mtime_ns
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises what the guest says: `InvalidState` with `details.stage` `left_out` after an archive that lacks some entries."""
        while data := await self._stream.receive():
            yield data

    async def aclose(self) -> None:
        """Want no more of it. Idempotent."""
        await self._stream.aclose()

    async def __aenter__(self) -> AsyncDownload:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
