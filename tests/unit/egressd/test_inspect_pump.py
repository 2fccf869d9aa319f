"""Conversations through an inspection, told as scripts: what one side says, and what the other hears."""

from __future__ import annotations

import hashlib
import ssl

import pytest

from tests.unit.certificates import DAY, NOW, make
from tests.unit.egressd.inspected_room import CA, HOST, ROOT, SERVER, Room, opened, serving, trusting

GET = b"GET /a?key=secret HTTP/1.1\r\nHost: api.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOKEN = "tok-1"
APPROVED = (hashlib.sha256(TOKEN.encode()).hexdigest(), hashlib.sha256(b"tok-2").hexdigest())


def with_fields(*lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} /a HTTP/1.1", "Host: api.example", *lines, "", ""]).encode()


# -- the good way -------------------------------------------------------------------------------------------------


def test_both_sides_are_shown_what_they_expect_and_speak_http_1_1() -> None:
    room = opened()
    assert room.client.tls.selected_alpn_protocol() == "http/1.1"
    assert room.server.tls.selected_alpn_protocol() is None or room.server.tls.selected_alpn_protocol() == "http/1.1"
    assert room.client.tls.version() == "TLSv1.3"
    shown = room.client.tls.getpeercert()
    assert shown is not None
    assert shown["subjectAltName"] == (("DNS", HOST),)


def test_a_request_and_its_answer_pass_and_are_told_without_the_query() -> None:
    room = opened()
    assert room.ask(GET) == GET
    assert room.told == []
    assert room.answer(OK) == OK
    assert room.told == [("GET", "/a", 200, "")]
    assert not room.pump.ended


def test_requests_follow_one_another_on_one_connection() -> None:
    room = opened()
    for number in range(3):
        assert room.ask(GET) == GET
        assert room.answer(OK) == OK
        assert len(room.told) == number + 1


def test_requests_end_where_no_more_can_be_told() -> None:
    """Each is a record, so there are no more of them than there is room for records; what was asked for is answered."""
    room = opened()
    room.full = True
    assert room.ask(GET * 100) == GET
    answers = b"".join(room.answer(OK) for _ in range(5))
    assert answers == OK * len(room.told)
    assert 1 <= len(room.told) <= 2
    assert room.pump.ended
    assert not room.pump.abrupt
    assert room.client.ended
    assert not room.client.torn


def test_requests_sent_ahead_wait_for_their_turn() -> None:
    room = opened()
    second = GET.replace(b"/a", b"/b")
    assert room.ask(GET + second) == GET
    assert room.answer(OK) == OK
    assert room.server.heard == GET + second
    room.answer(OK)
    assert [path for _, path, _, _ in room.told] == ["/a", "/b"]


def test_a_chunked_body_streams_both_ways() -> None:
    room = opened()
    head = b"POST /a HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert room.ask(head) == head
    assert room.ask(b"3\r\nabc\r\n") == b"3\r\nabc\r\n"
    assert room.ask(b"0\r\n\r\n") == b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert room.answer(answer) == answer
    assert room.answer(b"2\r\nok\r\n") == b"2\r\nok\r\n"
    assert room.answer(b"0\r\n\r\n") == b"0\r\n\r\n"
    assert room.ask(GET) == GET


def test_a_head_request_is_answered_without_a_body() -> None:
    room = opened()
    ask = GET.replace(b"GET", b"HEAD")
    assert room.ask(ask) == ask
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    assert room.answer(answer) == answer
    assert room.ask(GET) == GET


def test_100_continue_passes_and_the_body_behind_it() -> None:
    room = opened()
    ask = with_fields("Expect: 100-continue", "Content-Length: 3", method="PUT")
    assert room.ask(ask) == ask
    assert room.answer(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert room.ask(b"abc") == b"abc"
    assert room.answer(OK) == OK
    assert room.told == [("PUT", "/a", 200, "")]


def test_a_websocket_passes_both_ways_until_one_ends() -> None:
    room = opened(approved=APPROVED)
    ask = with_fields("Authorization: Bearer tok-1", "Connection: Upgrade", "Upgrade: websocket")
    assert b"\r\nUpgrade: websocket\r\n" in room.ask(ask)
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert room.answer(switch + b"\x81\x02hi") == switch + b"\x81\x02hi"
    assert room.ask(b"\x81\x82....") == b"\x81\x82...."
    assert room.told == [("GET", "/a", 101, "")]
    room.server.end()
    room.settle()
    assert room.pump.ended
    assert room.client.ended
    assert not room.pump.abrupt


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket, h2c"])
def test_other_upgrades_are_not_passed_on(upgrade: str) -> None:
    room = opened()
    heard = room.ask(with_fields("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMA"))
    assert b"pgrade" not in heard
    assert b"HTTP2" not in heard


def test_an_upstreams_end_behind_an_answer_ends_the_client_in_order() -> None:
    room = opened()
    room.ask(GET)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    heard = room.answer(answer)
    assert heard.lower().count(b"connection: close") == 1
    assert room.pump.ended
    assert not room.pump.abrupt
    assert room.client.ended
    assert not room.client.torn


def test_an_answer_that_ends_with_its_connection_is_passed_whole() -> None:
    room = opened()
    room.ask(GET)
    room.answer(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nso")
    room.answer(b"me")
    room.server.end()
    room.settle()
    assert room.client.heard == b"HTTP/1.1 200 OK\r\nX: 1\r\nConnection: close\r\n\r\nsome"
    assert room.told == [("GET", "/a", 200, "")]
    assert room.pump.ended
    assert room.client.ended
    assert not room.client.torn


def test_a_client_that_says_no_more_still_gets_its_answer() -> None:
    room = opened()
    room.ask(GET)
    room.client.end()
    room.settle()
    room.answer(OK)
    assert room.pump.ended
    assert not room.pump.abrupt


def test_a_host_header_goes_on_as_the_client_wrote_it() -> None:
    for host in (b"api.example:443", b"API.Example", b"api.example."):
        ask = GET.replace(b"api.example", host)
        assert opened().ask(ask) == ask


def test_a_whole_url_of_the_same_host_becomes_a_path() -> None:
    room = opened()
    assert room.ask(GET.replace(b"/a?", b"https://api.example/a?")) == GET


def test_an_address_is_inspected_like_a_name() -> None:
    server = make("by address", by=ROOT, hosts=("192.0.2.7",))
    room = Room(host="192.0.2.7", server=serving(server), server_name="192.0.2.7")
    room.begin()
    ask = b"GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n"
    assert room.ask(ask) == ask


# -- credentials --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer tok-1"],
        ["authorization: bearer  tok-2"],
        ["X-Api-Key: tok-1"],
        ["Authorization: Bearer tok-1", "x-api-key: tok-2"],
    ],
)
def test_an_approved_credential_passes(lines: list[str]) -> None:
    room = opened(approved=APPROVED)
    assert room.ask(with_fields(*lines)) == with_fields(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Authorization: Bearer tok-3"],
        ["Authorization: Bearer tok-1x"],
        ["Authorization: Bearer"],
        ["Authorization: Basic dG9rLTE6"],
        ["Authorization: tok-1"],
        ["X-Api-Key:"],
        ["Proxy-Authorization: Bearer tok-1"],
        ["Authorization: Bearer tok-1", "Authorization: Bearer tok-3"],
        ["Authorization: Bearer tok-1", "X-Api-Key: tok-3"],
        ["Authorization: Bearer tok-1", "X_Api_Key: tok-3"],
        ["Authorization: Bearer tok-1, Bearer tok-3"],
        [f"Authorization: Bearer {APPROVED[0]}"],
        ["Cookie: tok-1"],
    ],
)
def test_any_other_is_answered_401_and_nothing_goes_upstream(lines: list[str]) -> None:
    room = opened(approved=APPROVED)
    assert room.ask(with_fields(*lines)) == b""
    assert room.client.heard.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in room.client.heard
    assert b"approved credential" in room.client.heard
    assert [(method, path, status) for method, path, status, _ in room.told] == [("GET", "/a", 401)]
    assert room.pump.ended
    assert not room.pump.abrupt
    assert room.client.ended
    assert not room.client.torn


def test_each_request_is_judged() -> None:
    room = opened(approved=APPROVED)
    room.ask(with_fields("X-Api-Key: tok-1"))
    room.answer(OK)
    assert room.ask(with_fields("X-Api-Key: tok-3")) == b""
    assert [status for _, _, status, _ in room.told] == [200, 401]


def test_a_refused_head_request_is_answered_without_a_body() -> None:
    room = opened(approved=APPROVED)
    room.ask(with_fields(method="HEAD"))
    assert room.client.heard.endswith(b"\r\n\r\n")


def test_nothing_told_holds_a_credential_or_a_query() -> None:
    room = opened(approved=APPROVED)
    room.ask(GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer hush\r\n\r\n"))
    assert "hush" not in str(room.told)
    assert "secret" not in str(room.told)
    assert b"hush" not in room.client.heard


def test_a_credential_in_a_trailer_is_dropped() -> None:
    room = opened(approved=APPROVED)
    room.ask(with_fields("X-Api-Key: tok-1", "Transfer-Encoding: chunked", method="POST"))
    assert room.ask(b"0\r\nAuthorization: Bearer tok-3\r\nX-Sum: 1\r\n\r\n") == b"0\r\nX-Sum: 1\r\n\r\n"


# -- what a client may not do -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (GET.replace(b"Host: api.example", b"Host: other.example"), 421),
        (GET.replace(b"Host: api.example", b"Host: api.example:8443"), 421),
        (GET.replace(b"Host: api.example", b"Host: api.example@other.example"), 421),
        (GET.replace(b"/a?", b"https://other.example/a?"), 421),
        (GET.replace(b"Host: api.example", b"Host: api.example\r\nHost: other.example"), 400),
        (GET.replace(b"Host: api.example\r\n", b""), 400),
        (GET.replace(b"/a?", b"http://api.example/a?"), 400),
        (GET.replace(b"/a?", b"api.example:443"), 400),
        (GET.replace(b"GET /a?key=secret", b"CONNECT other.example:443"), 400),
        (GET.replace(b"/a?key=secret", b"/a#part"), 400),
        (with_fields("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (with_fields("Content-Length: 1", "Content-Length: 2"), 400),
        (with_fields("Content-Length: +1"), 400),
        (with_fields("Transfer-Encoding: gzip, chunked"), 501),
        (with_fields("Transfer-Encoding : chunked"), 400),
        (with_fields("X: a", " folded"), 400),
        (with_fields("X: a\0b"), 400),
        (with_fields("Connection: host"), 400),
        (GET.replace(b"\r\n", b"\n"), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (GET.replace(b"HTTP/1.1", b"HTTP/3.0"), 505),
        (with_fields("X: " + "a" * 70000), 431),
        (b"\x05\x01\x00", 400),
    ],
)
def test_what_has_two_meanings_is_refused_and_nothing_goes_upstream(ask: bytes, status: int) -> None:
    room = opened()
    assert room.ask(ask) == b""
    assert room.client.heard.startswith(b"HTTP/1.1 %d " % status)
    assert [told[2] for told in room.told] == [status]
    assert room.told[0][3]
    assert room.pump.ended


def test_a_second_request_is_not_smuggled_in_a_body() -> None:
    room = opened(approved=APPROVED)
    hidden = GET.replace(b"api.example", b"other.example")
    ask = with_fields("X-Api-Key: tok-1", f"Content-Length: {len(hidden)}", method="POST") + hidden
    assert room.ask(ask) == ask
    assert room.answer(OK) == OK
    assert room.ask(hidden) == b""
    assert b" 421 " in room.client.heard


def test_a_body_that_is_cut_off_is_answered_400() -> None:
    room = opened()
    room.ask(with_fields("Content-Length: 10", method="PUT") + b"abc")
    room.client.end()
    room.settle()
    assert room.client.heard.startswith(b"HTTP/1.1 400 ")
    assert [told[:3] for told in room.told] == [("PUT", "/a", 400)]


def test_a_client_that_names_another_host_in_its_hello_gets_an_alert() -> None:
    client = trusting()
    client.check_hostname = False
    room = opened(server_name="other.example", client=client)
    assert room.client.error is not None
    assert "UNRECOGNIZED_NAME" in str(room.client.error)
    assert room.pump.ended
    assert [told[:3] for told in room.told] == [("", "", 0)]


def test_a_client_without_a_name_in_its_hello_is_taken() -> None:
    client = trusting()
    client.check_hostname = False
    room = opened(server_name=None, client=client)
    assert room.ask(GET) == GET


def test_a_client_that_does_not_trust_the_inspection_is_told_of() -> None:
    room = opened(client=ssl.create_default_context())
    assert room.pump.ended
    assert "does not trust the certificate" in room.told[0][3]


def test_a_client_that_speaks_only_http_2_is_refused() -> None:
    client = trusting()
    client.set_alpn_protocols(["h2"])
    room = opened(client=client)
    assert room.client.tls.selected_alpn_protocol() is None
    assert room.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0") == b""
    assert room.client.heard.startswith(b"HTTP/1.1 505 ")


def test_a_client_that_speaks_plain_http_is_answered_in_it() -> None:
    room = Room()
    room.pump.start()
    answer = room.pump.receive_client(GET).client
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"TLS is expected" in answer
    assert room.pump.ended
    assert not room.pump.abrupt
    assert [told[:3] for told in room.told] == [("", "", 0)]


def test_a_client_that_speaks_something_else_is_ended() -> None:
    for hello in (b"\x80\x2e\x01\x03\x01", b"\0", b"\x15\x03\x01"):
        room = Room()
        room.pump.start()
        assert room.pump.receive_client(hello).client == b""
        assert room.pump.ended


def test_a_client_that_leaves_in_its_handshake_is_told_of() -> None:
    room = Room()
    room.pump.start()
    room.pump.receive_client(b"\x16\x03\x01")
    room.pump.receive_client(b"")
    assert room.pump.ended
    assert "closed the connection during the handshake" in room.told[0][3]


def test_a_client_that_asked_nothing_ends_in_silence() -> None:
    room = opened()
    room.end_of_client()
    assert room.pump.ended
    assert room.told == []


def test_what_a_client_sends_ahead_is_bounded() -> None:
    room = opened()
    room.ask(GET)
    assert room.pump.wants_client
    room.ask(b"x" * 65536)
    assert not room.pump.wants_client
    room.ask(b"x" * 65536 * 4)
    assert room.pump.ended
    assert room.pump.abrupt
    assert "too much ahead" in room.told[0][3]


def test_what_waits_for_the_servers_handshake_is_bounded() -> None:
    room = Room()
    room.to_client += room.pump.start().client
    room.client.say(with_fields("Content-Length: 1000000", method="PUT"))
    for _ in range(4):
        outgoing = room.client.outgoing.read()
        room.to_client += room.pump.receive_client(outgoing).client if outgoing else b""
        answer, room.to_client = bytes(room.to_client), bytearray()
        if answer:
            room.client.receive(answer)
    assert room.pump.wants_client
    room.client.say(b"x" * 70000)
    room.pump.receive_client(room.client.outgoing.read())
    assert not room.pump.wants_client


# -- what a server may not do -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (make(HOST, by=make("Other Root", authority=True), hosts=(HOST,)), "unable to get local issuer"),
        (make(HOST, hosts=(HOST,)), "self-signed"),
        (make("other.example", by=ROOT, hosts=("other.example",)), "Hostname mismatch"),
        (make(HOST, by=ROOT, hosts=(HOST,), ends=NOW - DAY * 365), "expired"),
        (make(HOST, by=ROOT), "Hostname mismatch"),
    ],
)
def test_a_server_that_cannot_be_verified_is_a_502_and_hears_nothing(server: object, says: str) -> None:
    room = opened(server=serving(server))  # type: ignore[arg-type]
    assert room.ask(GET) == b""
    assert room.client.heard.startswith(b"HTTP/1.1 502 ")
    assert says in room.client.heard.decode()
    assert [told[:3] for told in room.told] == [("GET", "/a", 502)]
    assert says in room.told[0][3]
    assert room.pump.ended
    assert not room.pump.abrupt


def test_a_client_whose_server_is_lost_stays_until_it_was_told() -> None:
    room = opened(server=serving(make(HOST, hosts=(HOST,))))
    assert not room.pump.upstream_done
    assert room.pump.receive_upstream(b"more of it") == (b"", b"")
    room.ask(GET)
    assert room.pump.upstream_done


def test_a_request_sent_before_the_server_failed_is_a_502_too() -> None:
    room = Room(server=serving(make(HOST, hosts=(HOST,))))
    hello = room.pump.start()
    room.client.say(GET)
    for _ in range(3):
        outgoing = room.client.outgoing.read()
        answer = room.pump.receive_client(outgoing).client if outgoing else b""
        if answer:
            room.client.receive(answer)
    assert room.client.heard == b""
    room.server.receive(hello.upstream)
    room.settle()
    assert room.client.heard.startswith(b"HTTP/1.1 502 ")
    assert room.server.heard == b""


def test_a_server_that_speaks_no_tls_is_a_502() -> None:
    room = Room()
    room.pump.start()
    room.pump.receive_upstream(b"SSH-2.0-OpenSSH\r\n")
    room.client.say(b"")
    room.settle()
    room.ask(GET)
    assert b"what it sends is not TLS" in room.client.heard


def test_a_server_with_tls_1_1_only_is_a_502() -> None:
    context = serving(SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    room = opened(server=context)
    room.ask(GET)
    assert room.client.heard.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\0" * 70000]
)
def test_an_answer_that_is_no_http_is_a_502(answer: bytes) -> None:
    room = opened()
    room.ask(GET)
    assert room.answer(answer).startswith(b"HTTP/1.1 502 ")
    assert room.told[0][2] == 502


def test_an_answer_that_is_cut_off_is_seen_to_be() -> None:
    room = opened()
    room.ask(GET)
    room.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    room.server.end()
    room.settle()
    assert room.pump.ended
    assert room.pump.abrupt
    assert not room.client.ended


def test_an_end_that_anybody_could_have_made_is_passed_on_as_such() -> None:
    room = opened()
    room.ask(GET)
    room.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
    room.end_of_server()
    assert room.pump.ended
    assert not room.pump.abrupt  # what came is all delivered
    assert room.client.heard == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf"
    assert not room.client.ended  # but no end was said
    assert [told[2] for told in room.told] == [200]


def test_an_end_in_the_middle_of_a_framed_answer_is_a_broken_one() -> None:
    for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
        room = opened()
        room.ask(GET)
        room.answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n4\r\nhalf")
        room.end_of_server()
        assert room.pump.abrupt
        assert not room.client.ended


def test_a_server_that_breaks_before_its_answer_is_a_502() -> None:
    room = opened()
    room.ask(GET)
    sends = room.pump.lose_upstream("the connection was reset")
    room.client.receive(sends.client)
    assert room.client.heard.startswith(b"HTTP/1.1 502 ")
    assert b"the connection was reset" in room.client.heard


@pytest.mark.parametrize("ordered", [True, False])
def test_a_server_that_closes_an_idle_connection_closes_the_clients(ordered: bool) -> None:
    room = opened()
    room.ask(GET)
    room.answer(OK)
    if ordered:
        room.server.end()
        room.settle()
    else:
        room.end_of_server()
    assert room.pump.ended
    assert not room.pump.abrupt
    assert room.client.ended
    assert not room.client.torn


def test_a_later_request_into_a_closing_connection_is_not_answered_so_that_it_is_sent_again() -> None:
    room = opened()
    room.ask(GET)
    room.answer(OK)
    before = room.client.heard
    room.client.say(GET)
    sends = room.pump.receive_client(room.client.outgoing.read())
    assert sends.upstream
    room.server.end()
    room.settle()
    assert room.pump.ended
    assert room.client.heard == before
    assert room.told[1] == ("GET", "/a", 0, "the server closed the connection before it answered")


def test_bytes_that_answer_nothing_end_the_connection() -> None:
    room = opened()
    assert room.answer(OK) == b""
    assert room.pump.ended
    room = opened()
    room.ask(GET)
    assert room.answer(OK + b"HTTP/1.1 200 OK\r\n\r\n") == OK
    assert room.pump.ended


def test_an_answer_before_the_whole_request_ends_the_connection_behind_it() -> None:
    room = opened()
    room.ask(with_fields("Content-Length: 10", method="PUT") + b"abc")
    heard = room.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert b"onnection: close" in heard
    assert room.pump.ended


def test_the_authority_of_these_tests_has_not_grown() -> None:
    assert len(CA._servers) <= 2
