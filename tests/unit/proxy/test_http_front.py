from __future__ import annotations

from collections.abc import Callable

import pytest

from coworkd.proxy.conversation import KEPT_LIMIT_BYTES
from coworkd.proxy.events import (
    Asked,
    Ended,
    Misused,
    Refusal,
    Route,
    Send,
    SendUpstream,
    Tunnelled,
    UpstreamDone,
)
from coworkd.proxy.http_front import HttpFront
from tests.unit.proxy.playbook import Playbook

CONNECT = b"CONNECT Example.com:443 HTTP/1.1\r\nHost: Example.com:443\r\n\r\n"
CONNECT_ASKED = Asked(protocol="connect", host="Example.com", port=443, tunnel=True)
ESTABLISHED = Send(data=b"HTTP/1.1 200 Connection Established\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def get(path: str, host: str = "example.com") -> bytes:
    return f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def asked(host: str = "example.com", port: int = 80) -> Asked:
    return Asked(protocol="http", host=host, port=port, tunnel=False)


def sent(path: str, host: str = "example.com") -> SendUpstream:
    return SendUpstream(data=f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())


# -- tunnels ------------------------------------------------------------------------------------------------------


def test_a_tunnel(playbook: Callable[[], Playbook]) -> None:
    play = (
        playbook().client(CONNECT).told(CONNECT_ASKED).grant(Route(host="example.com")).told(ESTABLISHED, Tunnelled())
    )
    assert (play.front.phase, play.front.rest) == ("tunnel", b"")


def test_bytes_behind_a_connect_are_kept(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(CONNECT + b"\x16\x03\x01\n\n\r\n\r\n").told(CONNECT_ASKED).client(b"more").told()
    play.grant().told(ESTABLISHED, Tunnelled())
    assert play.front.rest == b"\x16\x03\x01\n\n\r\n\r\nmore"


def test_a_client_may_end_while_its_tunnel_is_opened(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(CONNECT + b"all").skip().client_ends().told().grant().told(ESTABLISHED, Tunnelled())
    assert play.front.rest == b"all"


def test_a_refused_connect_is_answered_and_ends(playbook: Callable[[], Playbook]) -> None:
    heard = playbook().client(CONNECT + b"early").skip().refuse("allowlist", "no pattern allows it").hear()
    assert heard[1:] == [Ended()]
    assert isinstance(heard[0], Send)
    head, _, body = heard[0].data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"X-Proxy-Error: blocked-by-allowlist" in head
    assert body == b"Connection blocked by network allowlist\nno pattern allows it\n"


def test_nothing_is_heard_after_the_end(playbook: Callable[[], Playbook]) -> None:
    playbook().client(CONNECT).skip().refuse("dns").skip().client(CONNECT).client_ends().told()


# -- plain requests -----------------------------------------------------------------------------------------------


def test_a_request_and_its_answer(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(get("/a")).told(asked()).grant().told(sent("/a"))
    assert play.front.phase == "exchange"
    play.server(OK + b"hi").told(Send(data=OK + b"hi"), UpstreamDone())
    assert (play.front.phase, play.front.wants_data) == ("request", True)
    play.client_ends().told(Ended())


def test_requests_sent_ahead_wait_their_turn_and_are_each_asked_for(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(get("/a") + get("/b", "other.example") + get("/c")).told(asked())
    play.grant().told(sent("/a")).server(OK + b"hi").told(Send(data=OK + b"hi"), UpstreamDone(), asked("other.example"))
    play.grant().told(sent("/b", "other.example")).server(OK + b"ho")
    play.told(Send(data=OK + b"ho"), UpstreamDone(), asked())
    play.client_ends().told().grant().told(sent("/c")).server(OK + b"he").told(
        Send(data=OK + b"he"), UpstreamDone(), Ended()
    )


def test_a_refusal_ends_what_was_sent_ahead_as_well(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(get("/a") + get("/b")).told(asked()).refuse("allowlist")
    heard = play.hear()
    assert [type(event) for event in heard] == [Send, Ended]


def test_a_connect_may_follow_a_request(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(get("/a") + CONNECT + b"early").skip().grant().skip()
    play.server(OK + b"hi").told(Send(data=OK + b"hi"), UpstreamDone(), CONNECT_ASKED).grant().told(
        ESTABLISHED, Tunnelled()
    )
    assert play.front.rest == b"early"


def test_a_bad_request_behind_a_good_one_is_refused_in_its_turn(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(get("/a") + b"GET /b HTTP/1.1\r\nHost: example.com\r\n\r\n").skip().grant().skip()
    heard = play.server(OK + b"hi").hear()
    assert heard[:2] == [Send(data=OK + b"hi"), UpstreamDone()]
    assert isinstance(heard[2], Misused)
    assert isinstance(heard[3], Send)
    assert heard[3].data.startswith(b"HTTP/1.1 400 ")
    assert heard[4:] == [Ended()]


def test_head_is_refused_without_a_body(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(b"HEAD http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n").skip()
    heard = play.refuse("dns", "no such name").hear()
    assert isinstance(heard[0], Send)
    assert heard[0].data.endswith(b"\r\n\r\n")
    assert b"Content-Length: 13\r\n" in heard[0].data


# -- misuse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /path HTTP/1.1\r\nHost: example.com\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET ftp://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", b"501"),
        (
            b"POST http://example.com/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"400",
        ),
        (b"GET http://example.com/ HTTP/1.1\nHost: example.com\n\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"GET http://example.com/ HTTP/1.1\r\nA: " + b"a" * 17408, b"431"),
    ],
)
def test_bad_heads_are_answered_and_end(playbook: Callable[[], Playbook], data: bytes, status: bytes) -> None:
    misused, answer, end = playbook().client(data).hear()
    assert isinstance(misused, Misused)
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 " + status)
    assert misused.reason.encode() + b"\n" == answer.data.partition(b"\r\n\r\n")[2]
    assert (misused.protocol, end) == ("http", Ended())


def test_an_end_inside_a_head_is_misuse(playbook: Callable[[], Playbook]) -> None:
    misused, answer, end = playbook().client(CONNECT[:-1]).told().client_ends().hear()
    assert misused == Misused(reason="the connection ended inside the head of a request", protocol="http")
    assert isinstance(answer, Send)
    assert end == Ended()


def test_a_slow_head_is_answered(playbook: Callable[[], Playbook]) -> None:
    misused, answer, end = playbook().client(b"GET http:").expire().hear()
    assert misused == Misused(reason="the head of the request did not come in time", protocol="http")
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 408 ")
    assert end == Ended()


def test_silence_between_requests_ends_in_silence(playbook: Callable[[], Playbook]) -> None:
    playbook().client(get("/")).skip().grant().skip().server(OK + b"hi").skip().expire().told(Ended())


# -- bounds and turns ---------------------------------------------------------------------------------------------


def test_what_waits_for_a_decision_is_bounded() -> None:
    play = Playbook().client(CONNECT).skip().client(bytes(65535)).told()
    assert play.front.wants_data
    play.client(b"x").told()
    assert not play.front.wants_data
    reason = "the client sent too much ahead of what it waits for"
    play.client(bytes(KEPT_LIMIT_BYTES)).told(Misused(reason=reason, protocol="http"), Ended(abrupt=True))


def test_what_waits_behind_a_request_is_bounded() -> None:
    play = Playbook().client(get("/a")).skip().grant().skip().client(bytes(65536)).told()
    assert not play.front.wants_data
    reason = "the client sent too much ahead of what it waits for"
    play.client(bytes(KEPT_LIMIT_BYTES))
    play.told(UpstreamDone(), Misused(reason=reason, protocol="http"), Ended(abrupt=True))


def test_upstreams_belong_to_a_running_exchange() -> None:
    front = HttpFront(16384)
    with pytest.raises(RuntimeError, match="no exchange runs"):
        front.receive_upstream(b"x")
    with pytest.raises(RuntimeError, match="no exchange runs"):
        front.lose_upstream(Refusal(kind="connect", reason=""))
    front.receive_data(get("/"))
    with pytest.raises(RuntimeError, match="no exchange runs"):
        front.receive_upstream(b"x")


def test_a_decision_is_given_once() -> None:
    play = Playbook().client(get("/")).grant()
    with pytest.raises(RuntimeError, match="phase exchange"):
        play.grant()
    with pytest.raises(RuntimeError, match="phase exchange"):
        play.refuse("dns")
