from __future__ import annotations

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.wire.stream import StreamEvents, output_events


@pytest.mark.parametrize("eof", [False, True])
@pytest.mark.parametrize("data", [b"", b"x", b"y" * 65_536])
def test_frame_is_an_ordinary_notification(data: bytes, eof: bool) -> None:
    buffers = output_events("p-1", "stdout").frame(2**40, data, eof=eof)
    expected = {"process": "p-1", "stream": "stdout", "offset": 2**40, "data": data} | ({"eof": True} if eof else {})
    assert msgpack.unpackb(b"".join(buffers)) == [2, "process.output", [expected]]


def test_payload_is_handed_on_as_it_lies() -> None:
    data = memoryview(bytearray(b"abc"))
    assert output_events("p", "stderr").frame(0, data)[1] is data


@pytest.mark.parametrize("count", [0, 13])
def test_a_stream_has_1_to_12_names(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 12"):
        StreamEvents("stream.data", {str(number): "x" for number in range(count)})
