"""Files as streams, blocking: what `Client.upload` and `Client.download` are made of.

    client.upload("work", "notes.txt", b"hello")
    with client.download("work", "notes.txt") as download:
        for data in download: ...

Rules
- An upload counts when `send_upload` has returned. Whatever ends it before, an exception of whoever makes the bytes included, leaves no
  file behind; of an archive, the entries before the fault.
- A download that breaks off raises; what came before it is no whole file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType

from coworkd.client.stream import Stream
from coworkd.model.calls import FileDownloadOpened
from coworkd.model.errors import CoworkError, InvalidState


def send_upload(stream: Stream, data: bytes | Iterable[bytes]) -> int:
    """Send all of `data`, and return its size once the guest has it in place; closes the stream. Raises what the guest says."""
    with stream:
        size = 0
        refused: CoworkError | None = None
        try:
            for piece in (data,) if isinstance(data, bytes) else data:
                stream.send(piece)
                size += len(piece)
            stream.close_write()
        except InvalidState as error:
            # The guest takes no more, and says why at the stream's other end.
            refused = error
        while stream.receive():
            pass
        if refused is not None:
            raise refused
        return size


class Download:
    """The bytes of a file, or of an archive, as they come. Use it in a `with`.

    `size`, `mode` and `mtime_ns` are the file's, None of an archive.
    """

    def __init__(self, stream: Stream, opened: FileDownloadOpened) -> None:
        self.size = opened.size
        self.mode = opened.mode
        self.mtime_ns = opened.mtime_ns
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        """Raises what the guest says: `InvalidState` with `details.stage` `left_out` after an archive that lacks some entries."""
        while data := self._stream.receive():
            yield data

    def close(self) -> None:
        """Want no more of it. Idempotent."""
        self._stream.close()

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
