from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.wire.limits import FROM_HOST, Limits, RemoteLimitError, RemoteProtocolError
from coworkd.wire.scanner import FrameScanner
from tests.unit.call_count import count_calls

SMALL = Limits(fresh_frame_bytes=100, frame_bytes=200, depth=4, items=8, values=20)


def test_scan_finds_the_end_of_every_kind_of_value() -> None:
    values: list[Any] = [None, True, 0, -1, 200, 70_000, 2**33, -200, -70_000, -(2**40), 1.5, "t", "t" * 40, "t" * 300]
    values += ["t" * 70_000, b"b", b"b" * 300, b"b" * 70_000, [1] * 20, {str(n): n for n in range(20)}, [], {}]
    for value in values:
        frame = msgpack.packb([2, "m", [value]])
        scanner = FrameScanner(FROM_HOST)
        scanner.frame_bytes = FROM_HOST.frame_bytes
        assert scanner.scan(frame + b"\x93", 0) == len(frame), value


def test_scan_goes_on_where_it_stopped_byte_by_byte() -> None:
    frame = msgpack.packb([0, 70_000, "m", [{"a": [1, "x" * 40], "b": b"y" * 300}]])
    scanner = FrameScanner(FROM_HOST)
    ends = [scanner.scan(frame[:length], 0) for length in range(1, len(frame) + 1)]
    assert ends == [None] * (len(frame) - 1) + [len(frame)]


def test_scan_tells_how_much_is_missing_and_never_more() -> None:
    frame = msgpack.packb([2, "m", [{"a": "x" * 40, "data": b"y" * 300}]])
    scanner = FrameScanner(FROM_HOST)
    steps, length = 0, 1
    while scanner.scan(frame[:length], 0) is None:
        steps, length = steps + 1, length + scanner.missing_bytes
    assert length == len(frame)
    assert steps < 20


def test_scan_calls_nothing_for_each_value() -> None:
    few, many = (msgpack.packb([2, "m", [{str(n): [n] for n in range(count)}]]) for count in (1, 12))
    assert count_calls(lambda: FrameScanner(FROM_HOST).scan(many, 0)) == count_calls(
        lambda: FrameScanner(FROM_HOST).scan(few, 0)
    )


def test_reset_starts_anew_at_another_offset() -> None:
    frame = msgpack.packb([2, "m", [{}]])
    scanner = FrameScanner(FROM_HOST)
    first = scanner.scan(frame * 2, 0)
    scanner.reset()
    assert (first, scanner.scan(frame * 2, len(frame))) == (len(frame), 2 * len(frame))


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"GET / HTTP/1.1", "message-shape"),
        (b"\x92", "message-shape"),
        (b"\xdc\x00\x05", "message-shape"),
        (b"\xdd\xff\xff\xff\xff", "items"),
        (b"\x80", "message-shape"),
        (b"\xc6\xff\xff\xff\xff", "message-shape"),
        (b"\x94\x00\x01\xdb\xff\xff\xff\xff", "frame-bytes"),
        (b"\x94\x00\x01\xc6\xff\xff\xff\xff", "frame-bytes"),
        (b"\x94\x00\x01\xc5\x00\xff", "frame-bytes"),
        (b"\x94\x00\x01\xdf\xff\xff\xff\xff", "items"),
        (b"\x94\x00\x01\xdc\x00\x09", "items"),
        (b"\x93\x02\x93\x91\x91\x91", "depth"),
        (b"\x93\x02\x98" + b"\x98\x00\x00\x00\x00\x00\x00\x00\x00" * 2, "values"),
        (b"\x93\x02\xc1", "format"),
        (b"\x93\x02\xc7\x01\x05a", "extension"),
        (b"\x93\x02\xd4\x01\x00", "extension"),
        (b"\x93\x02\xd6\xff\x00\x00\x00\x00", "extension"),
    ],
)
def test_scan_refuses_at_the_first_byte_that_proves_it(data: bytes, rule: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        FrameScanner(SMALL).scan(data, 0)
    assert caught.value.rule == rule


def test_frame_cap_counts_the_bytes_of_one_message_however_they_drip() -> None:
    data = b"\x93\x02\xa1m\x98" + b"\xb8" + b"x" * 24 + b"\xb8" + b"x" * 24 + b"\xb8" + b"x" * 24 + b"\xb8"
    scanner = FrameScanner(SMALL)
    assert {scanner.scan(data[:length], 0) for length in range(1, len(data))} == {None}
    with pytest.raises(RemoteLimitError) as caught:
        scanner.scan(data, 0)
    assert (caught.value.rule, caught.value.details["limit"]) == ("frame-bytes", 100)


def test_a_message_of_exactly_the_cap_passes() -> None:
    frame = b"\x93\x02\xa1m\xc4\x5e" + b"x" * 94
    assert FrameScanner(SMALL).scan(frame, 0) == len(frame) == 100
