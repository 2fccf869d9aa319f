from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd.asking import Asking
from coworkd.egressd.loop import Loop
from coworkd.egressd.tcp import reset
from coworkd.proxy.upstream import Handshake, HttpConnect, Socks5Client
from tests.unit.egressd.sockets import fill, read_all, tcp_pair, turn_until


class Asked:
    """One asking, and the proxy that is the test's."""

    def __init__(self, loop: Loop, handshake: Handshake) -> None:
        self.loop = loop
        self.ours, self.proxy = tcp_pair()
        self.opened: list[bytes] = []
        self.refused: list[tuple[str, str]] = []
        self.asking = Asking(
            loop,
            self.ours,
            handshake,
            "the proxy",
            self.opened.append,
            lambda kind, why: self.refused.append((kind, why)),
        )

    def until_known(self) -> None:
        turn_until(self.loop, lambda: self.opened or self.refused)

    def heard(self, count: int) -> bytes:
        got = bytearray()

        def enough() -> bool:
            got.extend(read_all(self.proxy))
            return len(got) >= count

        turn_until(self.loop, enough)
        return bytes(got)

    def close(self) -> None:
        self.loop.forget(self.ours.fileno())
        self.ours.close()
        self.proxy.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    opened = Loop()
    yield opened
    opened.close()


@pytest.fixture
def connect(loop: Loop) -> Iterator[Asked]:
    asked = Asked(loop, HttpConnect("index.example", 443))
    yield asked
    asked.close()


@pytest.mark.parametrize("pieces", [1, 1000])
def test_an_open_way_has_the_servers_first_bytes(connect: Asked, pieces: int) -> None:
    connect.asking.start(registered=False)
    assert connect.heard(20).startswith(b"CONNECT index.example:443 ")
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + (b"hello" if pieces > 1 else b"")
    for start in range(0, len(answer), pieces):
        connect.proxy.send(answer[start : start + pieces])
        connect.loop.turn(0.01)
    connect.until_known()
    assert connect.opened == [b"hello" if pieces > 1 else b""]
    assert connect.refused == []


def test_an_open_way_is_silent_in_the_loop(connect: Asked) -> None:
    connect.asking.start(registered=False)
    connect.proxy.send(b"HTTP/1.1 200 OK\r\n\r\n")
    connect.until_known()
    connect.proxy.send(b"more")
    connect.loop.turn(0.01)
    assert connect.loop.turn(0.01) == 0


def test_a_refusal_has_its_kind_and_words(connect: Asked) -> None:
    connect.asking.start(registered=False)
    connect.proxy.send(b"HTTP/1.1 403 Forbidden\r\nX-Proxy-Error: blocked-by-sandbox-runtime\r\n\r\n")
    connect.until_known()
    assert connect.refused[0][0] == "address"
    assert "403" in connect.refused[0][1]


def test_a_reset_is_a_failure_to_connect(connect: Asked) -> None:
    connect.asking.start(registered=False)
    connect.heard(20)
    reset(connect.proxy)
    connect.proxy.close()
    connect.until_known()
    assert connect.refused == [("connect", "the proxy broke off: connection reset by peer")]


def test_an_end_of_file_is_a_failure_to_connect(connect: Asked) -> None:
    connect.asking.start(registered=False)
    connect.proxy.close()
    connect.until_known()
    assert connect.refused[0][0] == "connect"


def test_who_cancels_is_not_called(connect: Asked) -> None:
    connect.asking.start(registered=False)
    connect.asking.cancel()
    connect.proxy.send(b"HTTP/1.1 200 OK\r\n\r\n")
    connect.loop.turn(0.01)
    assert not connect.opened


def test_several_turns_of_a_handshake_are_taken(loop: Loop) -> None:
    asked = Asked(loop, Socks5Client("index.example", 443, username="me", password="word"))
    asked.asking.start(registered=False)
    assert asked.heard(4) == b"\x05\x02\x00\x02"
    asked.proxy.send(b"\x05\x02")
    assert asked.heard(8) == b"\x01\x02me\x04word"
    asked.proxy.send(b"\x01\x00")
    asked.heard(10)
    asked.proxy.send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00first")
    asked.until_known()
    assert asked.opened == [b"first"]
    asked.close()


def test_a_request_waits_for_room(loop: Loop) -> None:
    asked = Asked(loop, HttpConnect("index.example", 443))
    filled = fill(asked.ours)
    asked.asking.start(registered=False)
    loop.turn(0.01)
    got = asked.heard(filled + 20)
    assert got[filled:].startswith(b"CONNECT index.example:443 ")
    asked.close()


def test_unix_sockets_are_asked_as_well(loop: Loop) -> None:
    ours, proxy = socket.socketpair()
    ours.setblocking(False)
    opened: list[bytes] = []
    Asking(loop, ours, HttpConnect("a.example", 1), "the proxy", opened.append, lambda *_: None).start(registered=False)
    proxy.send(b"HTTP/1.1 200 OK\r\n\r\n")
    turn_until(loop, lambda: opened)
    loop.forget(ours.fileno())
    ours.close()
    proxy.close()
