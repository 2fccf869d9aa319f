from __future__ import annotations

from collections.abc import Callable

import pytest

from coworkd.proxy.events import Ended, Misused, Route, Send, SendUpstream, Tunnelled, UpstreamDone
from tests.unit.proxy.playbook import Playbook

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
BROKEN_BODY = "the body of a request is malformed, or the connection ended in the middle of it"


def lines(*each: str) -> bytes:
    return "".join(f"{line}\r\n" for line in each).encode("latin-1")


def request(*fields: str, method: str = "GET", target: str = "http://example.com/a", version: str = "1.1") -> bytes:
    return lines(f"{method} {target} HTTP/{version}", "Host: example.com", *fields, "")


def asked(play: Playbook, data: bytes, route: Route | None = None) -> Playbook:
    return play.client(data).skip().grant(route)


def sent(play: Playbook) -> bytes:
    heard = play.hear()
    assert len(heard) == 1
    assert isinstance(heard[0], SendUpstream)
    return heard[0].data


def answered(status: str, *fields: str, body: bytes = b"") -> Send:
    return Send(data=lines(f"HTTP/1.1 {status}", *fields, "") + body)


# -- what goes upstream -------------------------------------------------------------------------------------------


def test_fields_of_one_hop_stay_here(playbook: Callable[[], Playbook]) -> None:
    play = asked(
        playbook(),
        request(
            "User-Agent: it",
            "Connection: keep-alive, X-Private",
            "X-Private: 1",
            "X-Public: 2",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic c2VjcmV0",
            "proxy-anything: 1",
            "TE: trailers",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMA",
            "Trailer: X-Sum",
        ),
    )
    fields = ("Host: example.com", "User-Agent: it", "X-Public: 2", "Trailer: X-Sum", "Connection: close", "")
    assert sent(play) == lines("GET /a HTTP/1.1", *fields)


def test_host_is_what_was_decided_on(playbook: Callable[[], Playbook]) -> None:
    play = asked(
        playbook(), b"GET http://EXAMPLE.com.:8080/ HTTP/1.1\r\nHost: EXAMPLE.com\r\n\r\n", Route(host="example.com")
    )
    assert sent(play) == lines("GET / HTTP/1.1", "Host: example.com:8080", "Connection: close", "")


def test_ipv6_hosts_get_their_brackets_again(playbook: Callable[[], Playbook]) -> None:
    play = asked(
        playbook(), b"GET http://[2001:DB8::1]/ HTTP/1.1\r\nHost: [2001:DB8::1]\r\n\r\n", Route(host="2001:db8::1")
    )
    assert sent(play) == lines("GET / HTTP/1.1", "Host: [2001:db8::1]", "Connection: close", "")


def test_a_parent_proxy_is_told_the_whole_url_and_our_credentials(playbook: Callable[[], Playbook]) -> None:
    route = Route(host="example.com", absolute_form=True, proxy_authorization="Basic b3Vycw==")
    play = asked(playbook(), request("Proxy-Authorization: Basic dGhlaXJz", target="http://example.com/a?b"), route)
    fields = ("Host: example.com", "Connection: close", "Proxy-Authorization: Basic b3Vycw==", "")
    assert sent(play) == lines("GET http://example.com/a?b HTTP/1.1", *fields)


def test_options_of_the_server_as_a_whole(playbook: Callable[[], Playbook]) -> None:
    whole = request(method="OPTIONS", target="http://example.com")
    assert sent(asked(playbook(), whole)).startswith(b"OPTIONS * HTTP/1.1\r\n")
    play = asked(playbook(), whole, Route(absolute_form=True))
    assert sent(play).startswith(b"OPTIONS http://example.com HTTP/1.1\r\n")


def test_a_sized_body_is_passed_on_as_it_comes(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Content-Length: 10", method="POST") + b"half ")
    head = lines("POST /a HTTP/1.1", "Host: example.com", "Content-Length: 10", "Connection: close", "")
    assert sent(play) == head + b"half "
    play.client(b"whole").told(SendUpstream(data=b"whole")).server(OK).told(Send(data=OK), UpstreamDone())


def test_a_chunked_body_stays_chunked_with_its_trailers() -> None:
    play = asked(Playbook(), request("Transfer-Encoding: Chunked", method="PUT"))
    fields = ("Host: example.com", "Transfer-Encoding: chunked", "Connection: close", "")
    assert sent(play) == lines("PUT /a HTTP/1.1", *fields)
    play.client(b"5;name=value\r\nhello\r\n").told(SendUpstream(data=b"5\r\nhello\r\n"))
    play.client(b"0\r\nX-Sum: 1\r\nContent-Length: 3\r\nProxy-X: 1\r\n\r\n")
    play.told(SendUpstream(data=b"0\r\nX-Sum: 1\r\n\r\n")).server(OK).told(Send(data=OK), UpstreamDone())


def test_bytes_behind_a_body_are_the_next_request(playbook: Callable[[], Playbook]) -> None:
    second = b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n"
    play = asked(playbook(), request("Content-Length: 2", method="POST") + b"ab" + second).skip()
    heard = play.server(OK).hear()
    assert heard[:2] == [Send(data=OK), UpstreamDone()]
    assert "other.example" in repr(heard[2])


@pytest.mark.parametrize(
    "body", [b"x\r\n", b"0x1\r\na\r\n", b"1\r\nab\r\n", b"-1\r\n", b"1 2\r\n", b"f" * 21 + b"\r\n"]
)
def test_a_malformed_chunk_is_misuse(playbook: Callable[[], Playbook], body: bytes) -> None:
    play = asked(playbook(), request("Transfer-Encoding: chunked", method="POST")).skip()
    heard = play.client(body).hear()
    heard = [event for event in heard if not isinstance(event, SendUpstream)]
    assert heard[:2] == [UpstreamDone(), Misused(reason=BROKEN_BODY, protocol="http")]
    assert isinstance(heard[2], Send)
    assert heard[2].data.startswith(b"HTTP/1.1 400 ")
    assert heard[3:] == [Ended()]


@pytest.mark.parametrize("early", [True, False])
def test_an_end_inside_a_body_is_misuse(playbook: Callable[[], Playbook], early: bool) -> None:
    play = playbook().client(request("Content-Length: 3", method="POST") + b"ab").skip()
    play = play.client_ends().grant() if early else play.grant().client_ends()
    kinds = [type(event) for event in play.hear()]
    assert kinds == [SendUpstream, UpstreamDone, Misused, Send, Ended]


def test_an_end_inside_a_body_that_is_being_answered_is_abrupt(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Content-Length: 3", method="POST") + b"ab").skip()
    play.server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nstart").skip().client_ends()
    play.told(UpstreamDone(), Misused(reason=BROKEN_BODY, protocol="http"), Ended(abrupt=True))


# -- what comes back ----------------------------------------------------------------------------------------------


def test_fields_of_one_hop_stay_there(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request()).skip()
    play.server(
        lines(
            "HTTP/1.1 200 Fine",
            "Server: it",
            "Connection: close, X-Private",
            "X-Private: 1",
            "Keep-Alive: max=1",
            "Proxy-Authenticate: Basic",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "Content-Length: 2",
            "",
        )
        + b"hi"
    )
    fields = ("Server: it", "Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Length: 2")
    play.told(answered("200 Fine", *fields, body=b"hi"), UpstreamDone())


def test_a_chunked_answer_stays_chunked_with_its_trailers() -> None:
    play = asked(Playbook(), request()).skip()
    head = lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum", "")
    play.server(head + b"3\r\nabc\r\n")
    play.told(answered("200 OK", "Trailer: X-Sum", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
    play.server(b"0\r\nX-Sum: 1\r\n\r\n").told(Send(data=b"0\r\nX-Sum: 1\r\n\r\n"), UpstreamDone())


def test_a_length_beside_chunks_is_not_believed_nor_passed_on() -> None:
    play = asked(Playbook(), request()).skip()
    play.server(
        lines("HTTP/1.1 200 OK", "Content-Length: 1", "Transfer-Encoding: chunked", "") + b"2\r\nhi\r\n0\r\n\r\n"
    )
    play.told(answered("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n"), UpstreamDone())


def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client() -> None:
    play = asked(Playbook(), request()).skip().server(b"HTTP/1.0 200 OK\r\n\r\nab").server(b"cd")
    play.told(answered("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n2\r\ncd\r\n"))
    play.server_ends().told(Send(data=b"0\r\n\r\n"), UpstreamDone())
    assert play.front.phase == "request"


def test_a_client_of_http_1_0_gets_no_chunks_no_interim_answers_and_an_end(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Connection: keep-alive", version="1.0")).skip()
    play.server(lines("HTTP/1.1 103 Early Hints", "Link: </x>", ""))
    play.server(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "") + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")
    play.told(answered("200 OK", "Connection: close", body=b"hi"), UpstreamDone(), Ended())


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        ("HEAD", "200 OK", ("Content-Length: 1000",)),
        ("GET", "304 Not Modified", ("ETag: x", "Content-Length: 1000")),
        ("GET", "204 No Content", ()),
    ],
)
def test_answers_without_a_body(
    playbook: Callable[[], Playbook], method: str, status: str, fields: tuple[str, ...]
) -> None:
    play = asked(playbook(), request(method=method)).skip().server(lines(f"HTTP/1.1 {status}", *fields, ""))
    play.told(answered(status, *fields), UpstreamDone())
    assert play.front.phase == "request"


def test_no_content_has_no_length(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request()).skip().server(lines("HTTP/1.1 204 No Content", "Content-Length: 5", ""))
    play.told(answered("204 No Content"), UpstreamDone())


def test_an_empty_answer_is_whole(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request()).skip().server(lines("HTTP/1.1 200 OK", "Content-Length: 0", ""))
    play.told(answered("200 OK", "Content-Length: 0"), UpstreamDone())


def test_interim_answers_are_passed_on(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Expect: 100-continue", "Content-Length: 2", method="POST"))
    assert b"Expect: 100-continue\r\n" in sent(play)
    play.server(lines("HTTP/1.1 100 Continue", "Connection: x", "X: 1", "")).told(answered("100 Continue"))
    play.client(b"ab").told(SendUpstream(data=b"ab")).server(OK).told(Send(data=OK), UpstreamDone())


def test_an_expectation_may_be_refused(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Expect: 100-continue", "Content-Length: 2", method="POST")).skip()
    play.server(lines("HTTP/1.1 417 No", "Content-Length: 0", ""))
    play.told(answered("417 No", "Content-Length: 0", "Connection: close"), UpstreamDone(), Ended())


def test_an_answer_before_the_whole_request_ends_the_connection(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Content-Length: 9", method="POST") + b"some").skip()
    play.server(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nh").client(b" rest").server(b"i")
    heard = play.hear()
    assert heard[-2:] == [UpstreamDone(), Ended()]
    told = b"".join(event.data for event in heard if isinstance(event, Send))
    assert told == lines("HTTP/1.1 413 Too Large", "Content-Length: 2", "Connection: close", "") + b"hi"


def test_a_client_that_wants_to_close_is_closed(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request("Connection: close")).skip().server(OK)
    play.told(answered("200 OK", "Content-Length: 2", "Connection: close", body=b"hi"), UpstreamDone(), Ended())


def test_bytes_behind_an_answer_are_nobodys(playbook: Callable[[], Playbook]) -> None:
    play = asked(Playbook(), request()).skip().server(OK + b"HTTP/1.1 200 OK\r\n\r\nsmuggled")
    play.told(Send(data=OK), UpstreamDone())


# -- broken answers -----------------------------------------------------------------------------------------------

BAD_ANSWERS = [
    b"SSH-2.0-it\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x50",
    b"HTTP/1.1 099 x\r\n\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nbad field\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70000,
]


@pytest.mark.parametrize("data", BAD_ANSWERS)
def test_a_malformed_answer_is_a_502(playbook: Callable[[], Playbook], data: bytes) -> None:
    answer, done, end = asked(playbook(), request()).skip().server(data).hear()
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert (done, end) == (UpstreamDone(), Ended())


def test_an_answer_that_never_comes_is_a_502(playbook: Callable[[], Playbook]) -> None:
    answer, done, end = asked(playbook(), request()).skip().server_ends().hear()
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert (done, end) == (UpstreamDone(), Ended())


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
def test_an_answer_cut_short_ends_abruptly(playbook: Callable[[], Playbook], start: bytes) -> None:
    asked(playbook(), request()).skip().server(start).skip().server_ends().told(UpstreamDone(), Ended(abrupt=True))


def test_a_lost_server_is_no_end_of_an_answer(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request()).skip().server(b"HTTP/1.1 200 OK\r\n\r\nhalf").skip()
    play.server_lost("connect").told(UpstreamDone(), Ended(abrupt=True))


def test_a_server_lost_before_its_answer_is_told(playbook: Callable[[], Playbook]) -> None:
    answer, done, end = asked(playbook(), request()).skip().server_lost("timeout", "it took too long").hear()
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 504 ")
    assert answer.data.endswith(b"\r\n\r\nit took too long\n")
    assert (done, end) == (UpstreamDone(), Ended())


def test_a_parent_that_wants_credentials_is_not_the_clients_business(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), request(), Route(absolute_form=True)).skip()
    play.front.receive_upstream(lines("HTTP/1.1 407 No", "Proxy-Authenticate: Basic", "Content-Length: 0", ""))
    answer, done, end = play.client_ends().hear()
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 502 ")
    assert b"parentProxy" in answer.data
    assert (done, end) == (UpstreamDone(), Ended())


# -- upgrades -----------------------------------------------------------------------------------------------------

UPGRADE = request("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
SWITCHED = lines(
    "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: y", ""
)


def test_an_upgrade_becomes_raw_bytes(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), UPGRADE + b"ahead")
    fields = ("Host: example.com", "Sec-WebSocket-Key: x", "Connection: Upgrade", "Upgrade: websocket", "")
    assert sent(play) == lines("GET /a HTTP/1.1", *fields)
    play.server(SWITCHED).told(
        answered("101 Switching Protocols", "Sec-WebSocket-Accept: y", "Connection: Upgrade", "Upgrade: websocket"),
        Tunnelled(),
    )
    assert (play.front.phase, play.front.rest) == ("tunnel", b"ahead")


def test_bytes_behind_a_switch_reach_the_client_first() -> None:
    heard = asked(Playbook(), UPGRADE).skip().server(SWITCHED + b"\x81\x02hi").hear()
    assert isinstance(heard[0], Send)
    assert heard[0].data.endswith(b"\r\n\r\n\x81\x02hi")
    assert heard[1:] == [Tunnelled()]


def test_an_upgrade_may_be_declined(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), UPGRADE).skip().server(OK).told(Send(data=OK), UpstreamDone())
    assert play.front.phase == "request"


def test_no_upgrade_goes_through_a_parent_proxy(playbook: Callable[[], Playbook]) -> None:
    play = asked(playbook(), UPGRADE, Route(absolute_form=True))
    told = sent(play)
    assert b"pgrade" not in told
    assert b"Connection: close\r\n" in told


def test_a_switch_nobody_asked_for_is_a_502() -> None:
    for data in (request(), request("Upgrade: websocket")):
        answer, *_ = asked(Playbook(), data).skip().server(SWITCHED + b"raw").hear()
        assert isinstance(answer, Send)
        assert answer.data.startswith(b"HTTP/1.1 502 ")


def test_a_switch_inside_the_request_is_a_502() -> None:
    data = request("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5", method="POST")
    answer, *_ = asked(Playbook(), data).skip().server(SWITCHED).hear()
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 502 ")
