from __future__ import annotations

import pytest

from coworkd.model.errors import Unavailable
from coworkd.wire.hybrid import HybridAccept, HybridDial, compose_ok
from coworkd.wire.limits import RemoteProtocolError


def test_handshake_in_single_bytes() -> None:
    dial, accept = HybridDial(5005), HybridAccept()
    asked = [accept.feed(bytes([byte])) for byte in dial.request]
    assert (asked[:-1], asked[-1]) == ([None] * (len(dial.request) - 1), (5005, b""))
    told = [dial.feed(bytes([byte])) for byte in compose_ok(1073741824)]
    assert told[-1] == b""
    assert set(told[:-1]) == {None}


def test_bytes_behind_the_line_belong_to_the_link() -> None:
    assert HybridDial(1).feed(b"OK 9\n\x93\x02") == b"\x93\x02"
    assert HybridAccept().feed(b"CONNECT 7\nrest") == (7, b"rest")


def test_refusal_of_the_monitor_is_told() -> None:
    with pytest.raises(Unavailable, match="no such port"):
        HybridDial(1).feed(b"no such port\n")


def test_close_of_the_monitor_means_that_nothing_listens() -> None:
    with pytest.raises(Unavailable, match="port 5005"):
        HybridDial(5005).receive_eof()


@pytest.mark.parametrize("line", [b"CONNECT\n", b"CONNECT x\n", b"CONNECT 4294967296\n", b"GET /\n", b"x" * 65])
def test_odd_lines_are_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HybridAccept().feed(line)
    assert caught.value.rule == "hybrid"


def test_an_answer_without_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        HybridDial(1).feed(b"O" * 65)
