"""`rpc.stream_data`: what the msgpack library reads in the frames."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]

from coworkd.model.errors import Unavailable
from coworkd.rpc.stream_data import encode_stream_data


def told(frame: list[bytes | memoryview]) -> dict[str, Any]:
    kind, method, (params,) = msgpack.unpackb(b"".join(frame))
    assert (kind, method) == (2, "stream.data")
    found: dict[str, Any] = params
    return found


def test_data_is_not_copied_and_stands_at_its_offset() -> None:
    data = b"payload"
    frame = encode_stream_data("s1", 5, data, False, None)
    assert frame[-1] is data
    assert told(frame) == {"stream": "s1", "offset": 5, "data": data}


def test_the_end_is_told() -> None:
    assert told(encode_stream_data("s1", 5, b"", True, None)) == {"stream": "s1", "offset": 5, "eof": True, "data": b""}


def test_a_loss_is_told_with_its_error() -> None:
    params = told(encode_stream_data("s1", 5, b"", True, Unavailable("gone", session="work")))
    assert params == {
        "stream": "s1",
        "offset": 5,
        "eof": True,
        "error": {"code": "UNAVAILABLE", "message": "gone", "details": {"session": "work"}},
        "data": b"",
    }
