from __future__ import annotations

from collections.abc import Callable

import pytest

from coworkd.proxy.conversation import KEPT_LIMIT_BYTES
from coworkd.proxy.events import Asked, Ended, Misused, Refusal, Route, Send, Tunnelled
from coworkd.proxy.socks5 import Socks5Front
from tests.unit.proxy.playbook import Playbook

HELLO = b"\x05\x01\x00"
PLAIN = Send(data=b"\x05\x00")
TO_NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
ASKED = Asked(protocol="socks5", host="example.com", port=443, tunnel=True)
GRANTED = Send(data=b"\x05\x00\x00\x01" + bytes(6))


def reply(code: int) -> bytes:
    return bytes([5, code, 0, 1]) + bytes(6)


def misused(reason: str, *answer: bytes) -> list[Misused | Send | Ended]:
    return [Misused(reason=reason, protocol="socks5"), *(Send(data=each) for each in answer), Ended()]


def test_a_tunnel_by_name(playbook: Callable[[], Playbook]) -> None:
    play = playbook()
    play.client(HELLO).told(PLAIN).client(TO_NAME).told(ASKED)
    assert play.front.phase == "decision"
    play.grant(Route(host="example.com")).told(GRANTED, Tunnelled())
    assert (play.front.phase, play.front.rest) == ("tunnel", b"")


def test_bytes_behind_the_request_are_kept(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(HELLO + TO_NAME + b"\x16\x03\x01hello").told(PLAIN, ASKED).client(b", more").told()
    play.grant().told(GRANTED, Tunnelled())
    assert play.front.rest == b"\x16\x03\x01hello, more"


def test_a_client_may_end_while_it_waits(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(HELLO + TO_NAME + b"all of it").skip().client_ends().told()
    play.grant().told(GRANTED, Tunnelled())
    assert play.front.rest == b"all of it"


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (b"\x01\xc6\x33\x64\x01", "198.51.100.1"),
        (b"\x01\x7f\x00\x00\x01", "127.0.0.1"),
        (b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01", "2001:db8::1"),
        (b"\x04" + bytes(10) + b"\xff\xff\x7f\x00\x00\x01", "::ffff:127.0.0.1"),
        (b"\x03\x05127.1", "127.1"),
        (b"\x03\x03::1", "::1"),
        (b"\x03\xff" + b"a" * 255, "a" * 255),
    ],
)
def test_all_types_of_address(playbook: Callable[[], Playbook], address: bytes, host: str) -> None:
    play = playbook().client(HELLO + b"\x05\x01\x00" + address + b"\xff\xff")
    play.told(PLAIN, Asked(protocol="socks5", host=host, port=65535, tunnel=True))


@pytest.mark.parametrize(
    "words", [b"\x01\x04user\x04word", b"\x01\x00\x00", b"\x01\xff" + b"u" * 255 + b"\xff" + b"w" * 255]
)
def test_a_client_that_insists_on_a_password_may_say_any(playbook: Callable[[], Playbook], words: bytes) -> None:
    play = playbook().client(b"\x05\x02\x01\x02").told(Send(data=b"\x05\x02"))
    play.client(words).told(Send(data=b"\x01\x00")).client(TO_NAME).told(ASKED)


def test_no_authentication_is_preferred(playbook: Callable[[], Playbook]) -> None:
    playbook().client(b"\x05\x03\x02\x01\x00").told(PLAIN)


@pytest.mark.parametrize("greeting", [b"\x05\x00", b"\x05\x01\x01", b"\x05\x02\x80\xff"])
def test_other_authentication_is_refused(playbook: Callable[[], Playbook], greeting: bytes) -> None:
    reason = "the SOCKS client offers neither no authentication nor user name and password"
    playbook().client(greeting).told(*misused(reason, b"\x05\xff"))


def test_an_unknown_version_of_the_password_is_refused(playbook: Callable[[], Playbook]) -> None:
    reason = "the SOCKS user name and password have an unknown version"
    playbook().client(b"\x05\x01\x02\x05\x01").told(Send(data=b"\x05\x02"), *misused(reason, b"\x01\x01"))


BEGINNING = "the SOCKS request does not begin with version 5, or its reserved byte is not 0"
COMMAND = "of SOCKS only CONNECT is served, not BIND or UDP ASSOCIATE"
NAME = "the SOCKS request's name is empty or not printable ASCII"


@pytest.mark.parametrize(
    ("request_bytes", "reason", "code"),
    [
        (b"\x04\x01\x00\x01\x01\x02\x03\x04\x00\x50", BEGINNING, 1),
        (b"\x05\x01\x01\x01\x01\x02\x03\x04\x00\x50", BEGINNING, 1),
        (b"\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50", COMMAND, 7),
        (b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", COMMAND, 7),
        (b"\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50", COMMAND, 7),
        (b"\x05\x01\x00\x02\x01", "the SOCKS request has an unknown type of address", 8),
        (b"\x05\x01\x00\x00\x01", "the SOCKS request has an unknown type of address", 8),
        (b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x00", "the SOCKS request names port 0", 1),
        (b"\x05\x01\x00\x03\x00\x01\xbb", NAME, 2),
        (b"\x05\x01\x00\x03\x05a\x00b.c\x01\xbb", NAME, 2),
        (b"\x05\x01\x00\x03\x06a\r\nb.c\x01\xbb", NAME, 2),
        (b"\x05\x01\x00\x03\x05a b.c\x01\xbb", NAME, 2),
        (b"\x05\x01\x00\x03\x06\xc3\xa9.com\x01\xbb", NAME, 2),
    ],
)
def test_bad_requests_are_refused_in_socks(
    playbook: Callable[[], Playbook], request_bytes: bytes, reason: str, code: int
) -> None:
    playbook().client(HELLO).told(PLAIN).client(request_bytes).told(*misused(reason, reply(code)))


def test_a_refusal_is_a_reply(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client(HELLO + TO_NAME).skip().refuse("allowlist").told(Send(data=reply(2)), Ended())
    play.client(b"more").client_ends().told()
    assert play.front.phase == "ended"


@pytest.mark.parametrize("said", [b"\x05", b"\x05\x02\x00", HELLO, HELLO + TO_NAME[:-1]])
def test_an_end_inside_the_request_is_misuse(playbook: Callable[[], Playbook], said: bytes) -> None:
    playbook().client(said).skip().client_ends().told(*misused("the connection ended inside a SOCKS request"))


def test_a_slow_request_is_misuse(playbook: Callable[[], Playbook]) -> None:
    playbook().client(HELLO).told(PLAIN).expire().told(*misused("a SOCKS request did not come in time"))


def test_decisions_out_of_turn_are_the_callers_fault() -> None:
    socks = Socks5Front()
    with pytest.raises(RuntimeError, match="phase request"):
        socks.grant(Route())
    with pytest.raises(RuntimeError, match="phase request"):
        socks.refuse(Refusal(kind="dns", reason=""))
    with pytest.raises(RuntimeError, match="only a granted HTTP exchange"):
        socks.receive_upstream(b"x")
    with pytest.raises(RuntimeError, match="only a granted HTTP exchange"):
        socks.lose_upstream(Refusal(kind="connect", reason=""))


def test_what_waits_is_bounded() -> None:
    play = Playbook().client(HELLO + TO_NAME).skip()
    assert play.front.wants_data
    play.client(bytes(65536)).told()
    assert not play.front.wants_data
    play.client(bytes(KEPT_LIMIT_BYTES)).told(
        Misused(reason="the client sent too much ahead of what it waits for", protocol="socks5"), Ended(abrupt=True)
    )
