from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from host_stub.vsock import packet
from host_stub.vsock.connections import Connection, Key
from host_stub.vsock.packet import Header
from host_stub.vsock.streams import HostEnd

REQUEST = Header(3, 2, 4000, 5006, 0, packet.STREAM, packet.REQUEST, 0, 1 << 20, 0)


class Pair:
    """An open connection's end, and the host at the other side of its socket."""

    def __init__(self) -> None:
        self.host, ours = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(Key(4000, 5006), room=1 << 20, request=REQUEST)
        self.connection.next_owed()
        self.end = HostEnd(self.connection, ours)
        self.end.readable = True

    def write(self, data: bytes) -> None:
        self.connection.receive(REQUEST._replace(op=packet.RW, length=len(data)))
        half = len(data) // 2
        self.end.write([memoryview(data)[:half], memoryview(data)[half:]], len(data))

    def forwarded(self) -> int:
        return self.connection.compose(3, 2, packet.CREDIT_UPDATE).fwd_cnt


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.host.close()
    made.end.close()


def test_what_fits_is_written_at_once(pair: Pair) -> None:
    pair.write(b"words")
    assert pair.host.recv(100) == b"words"
    assert pair.forwarded() == 5


def test_what_does_not_fit_waits_in_order(pair: Pair) -> None:
    whole = bytes(range(256)) * 2048
    pair.write(whole)
    pair.write(b"end")
    got = b""
    while len(got) < len(whole) + 3:
        assert pair.forwarded() < len(whole) + 3 or len(got) > 0
        got += pair.host.recv(1 << 16)
        pair.end.flush()
    assert got == whole + b"end"
    assert pair.forwarded() == len(got)


def test_many_small_pieces_that_wait_take_no_more_room_than_they_are(pair: Pair) -> None:
    pair.write(bytes(1 << 19))
    for _ in range(1000):
        pair.write(b"x")
    assert len(pair.end._waiting) <= (1 << 19) + 1000


def test_a_host_that_is_gone_takes_everything_and_the_guest_is_told(pair: Pair) -> None:
    pair.write(bytes(1 << 19))
    pair.host.close()
    pair.end.flush()
    assert pair.forwarded() == 1 << 19
    assert pair.connection.host_done == packet.RECEIVES_NO_MORE
    pair.write(b"more")
    assert pair.forwarded() == (1 << 19) + 4


def test_reading_tells_data_nothing_and_the_end_apart(pair: Pair) -> None:
    one, two = bytearray(3), bytearray(3)
    pair.host.send(b"abcde")
    assert pair.end.read_into([memoryview(one), memoryview(two)]) == 5
    assert bytes(one + two) == b"abcde\0"
    assert pair.end.readable
    assert pair.end.read_into([memoryview(one)]) is None
    assert not pair.end.readable
    pair.host.shutdown(socket.SHUT_WR)
    assert pair.end.read_into([memoryview(one)]) == 0
    assert not pair.end.hung_up


def test_a_broken_socket_reads_as_an_end(pair: Pair) -> None:
    pair.end.socket.send(b"unread")
    pair.host.close()
    assert pair.end.read_into([memoryview(bytearray(1))]) == 0
    assert pair.end.hung_up


def test_the_guests_last_byte_comes_before_its_end(pair: Pair) -> None:
    pair.write(bytes(1 << 19))
    pair.connection.receive(REQUEST._replace(op=packet.SHUTDOWN, flags=packet.SENDS_NO_MORE))
    pair.end.heed_shutdown()
    got = 0
    while data := pair.host.recv(1 << 16):
        got += len(data)
        pair.end.flush()
    assert got == 1 << 19


def test_an_end_is_finished_when_nothing_waits(pair: Pair) -> None:
    pair.write(bytes(1 << 19))
    assert not pair.end.finished
    pair.end.leave()
    assert not pair.end.finished
    while not pair.end.finished:
        pair.host.recv(1 << 16)
        pair.end.flush()


def test_a_client_is_greeted_with_its_port(pair: Pair) -> None:
    pair.end.greet()
    assert pair.host.recv(100) == b"OK 5006\n"
