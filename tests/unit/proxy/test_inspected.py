"""The plain side alone; with TLS around it: tests/unit/egressd/test_inspect_pump.py."""

from __future__ import annotations

import hashlib

import h11
from hypothesis import given
from hypothesis import strategies as st

from coworkd.proxy.inspected import InspectedConversation, InspectedRequest

GET = b"GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
APPROVED_GET = GET.replace(b"\r\n\r\n", b"\r\nX-Api-Key: one\r\n\r\n")
APPROVED = (hashlib.sha256(b"one").hexdigest(),)


def conversation(*approved: str) -> InspectedConversation:
    return InspectedConversation("api.example", 443, approved)


def test_a_request_goes_one_way_and_its_answer_the_other() -> None:
    talk = conversation()
    talk.receive_client(GET)
    assert talk.take() == (b"", GET)
    talk.receive_upstream(OK)
    assert talk.take() == (OK, b"")
    assert list(talk.requests) == [InspectedRequest(method="GET", path="/a", status=200)]
    assert talk.phase == "requests"


def test_a_refused_request_is_noted_once_and_ends_it() -> None:
    talk = conversation(*APPROVED)
    talk.receive_client(GET + GET)
    client, upstream = talk.take()
    assert client.startswith(b"HTTP/1.1 401 ")
    assert upstream == b""
    assert [one.status for one in talk.requests] == [401]
    assert talk.phase == "ended"
    assert not talk.wants_client


def test_a_server_lost_before_any_request_is_told_to_the_first() -> None:
    talk = conversation()
    talk.lose_upstream("no way")
    assert talk.phase == "requests"
    talk.receive_client(GET)
    client, upstream = talk.take()
    assert b"no way" in client
    assert upstream == b""
    assert list(talk.requests) == [InspectedRequest(method="GET", path="/a", status=502, reason="no way")]


def test_a_request_to_a_lost_server_is_judged_first() -> None:
    talk = conversation(*APPROVED)
    talk.lose_upstream("no way")
    talk.receive_client(GET)
    assert talk.take()[0].startswith(b"HTTP/1.1 401 ")


def test_a_client_that_is_lost_leaves_its_request_unanswered() -> None:
    talk = conversation()
    talk.receive_client(GET)
    talk.lose_client("gone")
    assert list(talk.requests) == [InspectedRequest(method="GET", path="/a", status=0, reason="gone")]
    assert talk.abrupt


def test_an_answer_to_http_1_0_ends_the_connection() -> None:
    talk = conversation()
    talk.receive_client(b"GET /a HTTP/1.0\r\n\r\n")
    assert talk.take()[1] == b"GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n"
    talk.receive_upstream(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert talk.take()[0].endswith(b"\r\n\r\nok")
    assert talk.phase == "ended"


def test_http_1_0_to_another_port_names_it() -> None:
    talk = InspectedConversation("api.example", 8443, ())
    talk.receive_client(b"GET /a HTTP/1.0\r\n\r\n")
    assert b"Host: api.example:8443\r\n" in talk.take()[1]


def test_a_credential_does_not_come_behind_the_body() -> None:
    talk = conversation(*APPROVED)
    talk.receive_client(
        APPROVED_GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        + b"0\r\nX-Api-Key: two\r\nx_api_key: two\r\nAuthorization: Bearer two\r\nX-Sum: 1\r\n\r\n"
    )
    assert talk.take()[1].endswith(b"\r\n\r\n0\r\nX-Sum: 1\r\n\r\n")


BODY = st.binary(max_size=30)
PIECES = st.lists(
    st.sampled_from(
        [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"Host: api.example\r\n", b"Host: b.example\r\n", b"\r\n"]
    )
    | st.sampled_from(
        [
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"X-Api-Key: one\r\n",
            b"X: y\n",
            b"5\r\nhello\r\n",
        ]
    )
    | st.sampled_from(
        [b"0\r\n\r\n", b"hello", GET, APPROVED_GET, b"Connection: x-api-key\r\n", b"Authorization: Bearer two\r\n"]
    )
    | BODY,
    max_size=10,
)


@given(PIECES)
def test_what_goes_upstream_are_whole_requests_that_were_judged(pieces: list[bytes]) -> None:
    """Read by a server: each is for the one host, and holds the approved credential and no other."""
    talk = conversation(*APPROVED)
    server = h11.Connection(h11.SERVER)
    sent = b""
    for piece in pieces:
        talk.receive_client(piece)
        sent += talk.take()[1]
    server.receive_data(sent)
    event = server.next_event()
    if isinstance(event, h11.Request):
        fields = dict(event.headers)
        assert fields[b"host"] == b"api.example"
        assert fields[b"x-api-key"] == b"one"
        assert b"authorization" not in fields
        while event not in (h11.NEED_DATA, h11.PAUSED):
            event = server.next_event()
        assert server.trailing_data[0] == b""
    else:
        assert sent == b""


@given(st.lists(BODY | st.sampled_from([OK, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"]), max_size=6))
def test_any_answer_is_passed_or_refused(pieces: list[bytes]) -> None:
    talk = conversation()
    talk.receive_client(GET)
    for piece in pieces:
        if piece:
            talk.receive_upstream(piece)
    talk.receive_upstream(b"")
    assert talk.phase == "ended"
    assert len(talk.requests) == 1
