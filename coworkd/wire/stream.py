"""Stream events (`process.output`, `stream.data`) as buffers, so that a payload is never copied into a message.

A frame is `[2, method, [{…, offset, eof?, data}]]` with `data` as its last key: everything up to the payload is one
small header, and the payload follows as it lies in memory. Any decoder reads it as one ordinary notification.

Source: MessagePack specification, sections map, bin, uint.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct as Layout

import msgpack  # type: ignore[import-untyped]

_UINT64 = Layout(">BQ").pack
_BIN32 = Layout(">BI").pack
_DATA = b"\xa4data"
_OFFSET = b"\xa6offset"
_EOF = b"\xa3eof\xc3"


class StreamEvents:
    """Composes the events of one stream: `method` and the `names` that identify the stream are encoded once."""

    def __init__(self, method: str, names: Mapping[str, str]) -> None:
        if not 0 < len(names) <= 12:
            raise ValueError(f"a stream needs 1 to 12 names, got {len(names)}")
        head = b"\x93\x02" + bytes(msgpack.packb(method)) + b"\x91"
        pairs = b"".join(bytes(msgpack.packb(text)) for pair in names.items() for text in pair) + _OFFSET
        self._plain = head + bytes([0x80 | len(names) + 2]) + pairs
        self._ended = head + bytes([0x80 | len(names) + 3]) + pairs

    def frame(self, offset: int, data: bytes | memoryview, *, eof: bool = False) -> list[bytes | memoryview]:
        """Return the buffers of one event; `data` is not copied and must not change until they were sent.

        `offset` is the stream offset of `data[0]`; `eof` says that the stream ends behind `data`, which may be empty.
        """
        header = self._ended if eof else self._plain
        header += _UINT64(0xCF, offset) + (_EOF if eof else b"") + _DATA + _BIN32(0xC6, len(data))
        return [header, data] if data else [header]


def output_events(process: str, stream: str) -> StreamEvents:
    """The `process.output` events of one stream of one process."""
    return StreamEvents("process.output", {"process": process, "stream": stream})
