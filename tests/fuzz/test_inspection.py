"""Inspection: any cutting gives the same conversation; any bytes of either side, plain or on the wire, end it or wait, and none raises."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.egressd.inspected_room import opened

GET = b"GET /a?key=secret HTTP/1.1\r\nHost: api.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
APPROVED = (hashlib.sha256(b"tok-1").hexdigest(),)


@given(step=st.integers(1, 700))
@settings(max_examples=20, deadline=None)
def test_any_cutting_gives_the_same_conversation(step: int) -> None:
    room = opened(step=step)
    assert room.ask(GET + GET) == GET
    room.answer(OK)
    room.answer(OK)
    assert room.client.heard == OK + OK
    assert room.server.heard == GET + GET
    assert [told[2] for told in room.told] == [200, 200]


@given(
    st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([GET, GET[:20], b"\r\n", b"0\r\n\r\n"]), max_size=8)
)
@settings(max_examples=60, deadline=None)
def test_any_words_of_a_client_are_answered_or_wait(words: list[bytes]) -> None:
    room = opened(approved=APPROVED)
    for word in words:
        if room.pump.ended:
            break
        room.client.say(word)
        room.settle()
    assert room.server.heard == b""


@given(st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([OK, OK[:9], b"\r\n"]), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_words_of_a_server_are_passed_or_refused(words: list[bytes]) -> None:
    room = opened()
    room.ask(GET)
    for word in words:
        room.answer(word)
    room.end_of_server()
    assert room.pump.ended


@given(st.binary(min_size=1, max_size=200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_bytes_on_the_wire_end_it_or_wait(data: bytes, from_client: bool) -> None:
    room = opened()
    receive = room.pump.receive_client if from_client else room.pump.receive_upstream
    receive(data)
    receive(b"")
    room.pump.receive_client(b"")
    assert room.pump.ended
