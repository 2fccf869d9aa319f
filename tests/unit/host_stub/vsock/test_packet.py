from __future__ import annotations

import itertools

import pytest

from host_stub.vsock import packet
from host_stub.vsock.packet import Header

HEADER = Header(3, 2, 1024, 5005, 7, packet.STREAM, packet.RW, 0, 0x1000, 5)


def test_header_is_the_bytes_of_the_specification() -> None:
    assert packet.compose_header(HEADER) == bytes.fromhex(
        "0300000000000000 0200000000000000 00040000 8d130000 07000000 0100 0500 00000000 00100000 05000000"
    )


@pytest.mark.parametrize("cuts", [(44,), (44, 50), (10, 44, 47), (1, 2, 43), (50,)])
def test_header_is_found_however_a_chain_is_cut(cuts: tuple[int, ...]) -> None:
    raw = packet.compose_header(HEADER) + b"payload"
    edges = [0, *cuts, len(raw)]
    views = [memoryview(raw)[start:end] for start, end in itertools.pairwise(edges)]
    parsed = packet.parse_header(views)
    assert parsed is not None
    assert (parsed[0], b"".join(parsed[1])) == (HEADER, b"payload")


@pytest.mark.parametrize("sizes", [(), (43,), (40, 3)])
def test_less_than_a_header_is_none(sizes: tuple[int, ...]) -> None:
    assert packet.parse_header([memoryview(bytes(size)) for size in sizes]) is None


@pytest.mark.parametrize("sizes", [(44,), (60,), (1, 43), (20, 20, 20)])
def test_header_is_written_however_a_chain_is_cut(sizes: tuple[int, ...]) -> None:
    pieces = [bytearray(size) for size in sizes]
    packet.write_header([memoryview(piece) for piece in pieces], HEADER)
    whole = b"".join(pieces)
    assert whole == packet.compose_header(HEADER).ljust(len(whole), b"\0")


def test_split_loses_nothing() -> None:
    views = [memoryview(b"abc"), memoryview(b""), memoryview(b"defg")]
    for size in range(9):
        head, rest = packet.split(views, size)
        assert b"".join(head) == b"abcdefg"[:size]
        assert b"".join(rest) == b"abcdefg"[size:]
