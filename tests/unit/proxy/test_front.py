from __future__ import annotations

from collections.abc import Callable

import pytest

from coworkd.proxy.events import NEED_DATA, Asked, Ended, Misused, Refusal, Route, Send, Tunnelled
from coworkd.proxy.front import Front
from tests.unit.proxy.playbook import Playbook

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"


def test_the_first_byte_tells_the_protocol(playbook: Callable[[], Playbook]) -> None:
    playbook().client(CONNECT).told(Asked(protocol="connect", host="example.com", port=443, tunnel=True))
    playbook().client(b"\x05\x01\x00").told(Send(data=b"\x05\x00"))


@pytest.mark.parametrize(
    "rest", [b"", b"\x01\x00\x50\x01\x02\x03\x04user\x00", b"\x02\x00\x50\x00\x00\x00\x01\x00example.com\x00"]
)
def test_socks4_is_told_so_in_socks4(playbook: Callable[[], Playbook], rest: bytes) -> None:
    play = playbook().client(b"\x04" + rest)
    play.told(
        Misused(reason="SOCKS4 is not served: use SOCKS5 (socks5h://)"), Send(data=b"\x00\x5b" + bytes(6)), Ended()
    )
    assert (play.front.phase, play.front.wants_data) == ("ended", False)


def test_one_who_says_nothing_ends_in_silence(playbook: Callable[[], Playbook]) -> None:
    play = playbook().client_ends().told(Ended())
    assert play.front.phase == "ended"
    play.client_ends().told()


def test_one_who_says_nothing_for_long_ends_in_silence(playbook: Callable[[], Playbook]) -> None:
    play = playbook().expire().told(Ended())
    play.client(b"GET").told()


def test_phases_say_what_is_waited_for(playbook: Callable[[], Playbook]) -> None:
    play = playbook()
    assert (play.front.phase, play.front.wants_data) == ("request", True)
    play.client(CONNECT).skip()
    assert (play.front.phase, play.front.wants_data) == ("decision", True)
    play.grant().skip()
    assert (play.front.phase, play.front.wants_data) == ("tunnel", False)


def test_nothing_is_told_before_something_is_said() -> None:
    front = Front()
    assert front.next_event() is NEED_DATA
    assert front.next_event() is NEED_DATA


def test_the_limit_of_a_head_is_the_callers() -> None:
    play = Playbook(head_limit_bytes=40).client(CONNECT)
    reason = "the head of the request has more than 40 bytes"
    heard = play.hear()
    assert heard[0] == Misused(reason=reason, protocol="http")
    assert isinstance(heard[1], Send)
    assert heard[1].data.startswith(b"HTTP/1.1 431 ")
    assert heard[2:] == [Ended()]


def test_calls_out_of_turn_are_the_callers_fault() -> None:
    front = Front()
    for call in (
        lambda: front.grant(Route()),
        lambda: front.refuse(Refusal(kind="dns", reason="")),
        lambda: front.receive_upstream(b"x"),
        lambda: front.lose_upstream(Refusal(kind="connect", reason="")),
        lambda: front.rest,
    ):
        with pytest.raises(RuntimeError, match="nothing yet"):
            call()


def test_a_request_that_came_does_not_expire() -> None:
    play = Playbook().client(CONNECT)
    with pytest.raises(RuntimeError, match="phase decision"):
        play.expire()


def test_the_bytes_of_a_tunnel_are_not_given_to_it() -> None:
    play = Playbook().client(CONNECT).grant()
    play.skip().told()
    assert play.front.next_event() is NEED_DATA
    with pytest.raises(RuntimeError, match="the caller's"):
        play.client(b"x")
    assert Tunnelled() == Tunnelled()
