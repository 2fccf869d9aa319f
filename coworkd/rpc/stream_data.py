"""`stream.data` as buffers: what `app` hands to the stream service, which encodes nothing itself.

The usual frame is composed around its payload without a copy (`wire.stream`); the last frame of a stream that was lost has no payload,
but the error as docs/protocol.md C-3 has it.
"""

from __future__ import annotations

from functools import lru_cache

from coworkd.model.errors import CoworkError
from coworkd.wire.connection import compose_notification
from coworkd.wire.fault import compose_fault
from coworkd.wire.stream import StreamEvents

EVENT = "stream.data"


def encode_stream_data(
    stream: str, offset: int, data: bytes, eof: bool, error: CoworkError | None
) -> list[bytes | memoryview]:  # fmt: skip
    """The buffers of one `stream.data` event."""
    if error is None:
        return _events_of(stream).frame(offset, data, eof=eof)
    told = {"stream": stream, "offset": offset, "eof": True, "error": compose_fault(error), "data": data}
    return [compose_notification(EVENT, told)]


@lru_cache(maxsize=1024)
def _events_of(stream: str) -> StreamEvents:
    return StreamEvents(EVENT, {"stream": stream})
