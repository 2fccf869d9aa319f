from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import pytest

from host_stub.vsock import messages
from host_stub.vsock.device import REPLY_ACK
from host_stub.vsock.front_end import FrontEnd
from host_stub.vsock.messages import Ask


class Silent:
    """Nobody drives the rings here."""

    def changed(self, index: int) -> None:
        pass

    def releasing(self, fd: int) -> None:
        pass


class Pair:
    def __init__(self) -> None:
        self.monitor, ours = socket.socketpair()
        self.monitor.setblocking(False)
        self.end = FrontEnd(ours, 3, Silent())

    def send(self, ask: int, payload: bytes = b"", *, fds: int = 0, flags: int = 1, size: int | None = None) -> None:
        raw = messages.HEADER.pack(ask, flags, len(payload) if size is None else size) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * fds))] if fds else []
        self.monitor.sendmsg([raw], rights)


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = set(os.listdir("/proc/self/fd"))
    made = Pair()
    yield made
    made.monitor.close()
    made.end.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_requests_that_come_together_are_answered_in_order(pair: Pair) -> None:
    pair.send(Ask.GET_FEATURES)
    pair.send(Ask.SET_OWNER)
    pair.send(Ask.GET_QUEUE_NUM)
    pair.end.read()
    assert pair.end.closed is None
    raw = pair.monitor.recv(1000)
    asks = [messages.HEADER.unpack_from(raw, at)[0] for at in (0, messages.HEADER.size + 8)]
    assert asks == [Ask.GET_FEATURES, Ask.GET_QUEUE_NUM]


def test_a_request_in_pieces_waits_for_its_rest(pair: Pair) -> None:
    raw = messages.HEADER.pack(Ask.SET_FEATURES, 1, 8) + messages.compose_u64(0)
    for at in range(len(raw)):
        pair.monitor.send(raw[at : at + 1])
        pair.end.read()
        assert pair.end.closed is None
    pair.monitor.close()
    pair.end.read()
    assert pair.end.closed == "it left"


def test_leaving_in_the_midst_of_a_message_is_said(pair: Pair) -> None:
    pair.send(Ask.SET_VRING_KICK, b"\0", fds=1, size=8)
    pair.monitor.close()
    pair.end.read()
    assert pair.end.closed == "it left in the midst of a message"


def test_a_breach_is_acknowledged_and_ends_it(pair: Pair) -> None:
    pair.send(Ask.SET_PROTOCOL_FEATURES, messages.compose_u64(REPLY_ACK))
    pair.send(Ask.SET_FEATURES, messages.compose_u64(1), flags=9)
    pair.send(Ask.SET_OWNER, flags=9)
    pair.end.read()
    assert pair.end.closed == "features 0x1 were not offered"
    assert pair.monitor.recv(1000) == messages.compose_reply(Ask.SET_FEATURES, messages.compose_u64(1))


def test_more_descriptors_than_belong_anywhere_end_it(pair: Pair) -> None:
    pair.send(Ask.SET_OWNER, fds=messages.FD_LIMIT + 30)
    pair.end.read()
    assert pair.end.closed is not None
    assert "descriptors" in pair.end.closed


def test_descriptors_nobody_asked_for_are_closed(pair: Pair) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pair.send(Ask.SET_OWNER, fds=3)
    pair.end.read()
    assert pair.end.closed is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_turn_is_bounded(pair: Pair) -> None:
    for _ in range(100):
        pair.send(Ask.SET_OWNER)
    pair.end.read()
    assert len(pair.end.socket.recv(1 << 16)) > 0


def test_a_monitor_that_takes_no_replies_is_left(pair: Pair) -> None:
    pair.end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for _ in range(1000):
        if pair.end.closed:
            break
        pair.send(Ask.GET_FEATURES)
        pair.end.read()
    assert pair.end.closed == "it does not take replies"
