from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from host_stub.vsock import packet
from host_stub.vsock.memory import GuestError
from host_stub.vsock.ring import WRITE
from host_stub.vsock.traffic import PATIENCE_S, TURN_PACKETS, announce_reset
from tests.unit.host_stub.vsock.traffic_room import Room


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    made.guest.refill()
    yield made
    made.close()


def test_a_connection_is_told_when_it_opens_and_when_it_ends(room: Room) -> None:
    room.guest.send(4000, 5006, packet.REQUEST)
    assert room.turn() == [packet.RESPONSE]
    assert room.dialled == [5006]
    (end,) = room.opened
    room.guest.send(4000, 5006, packet.SHUTDOWN, flags=packet.DONE)
    assert room.turn() == [packet.RST]
    assert room.closed == [end]
    assert room.traffic.connections == 0


def test_an_end_is_read_only_while_it_is_readable(room: Room) -> None:
    room.guest.send(4000, 5006, packet.REQUEST)
    room.turn()
    room.hosts[0].send(b"news")
    assert room.turn() == []
    room.traffic.heed(room.opened[0], readable=True, writable=False, hung_up=False)
    assert room.turn() == [packet.RW]


def test_a_turn_takes_a_bounded_number_of_packets() -> None:
    room = Room(queue_size=1024)
    for _ in range(TURN_PACKETS + 1):
        room.guest.tx.offer([(room.guest.tx.buffers, packet.SIZE)], 0)
    assert room.traffic.turn()
    assert len(list(room.guest.tx.collect())) == TURN_PACKETS
    assert not room.traffic.turn()
    room.close()


def test_buffers_without_room_break_the_queue(room: Room) -> None:
    rx = room.guest.rx
    while rx.chains:
        room.guest.send(1, 1, packet.RW)
        room.traffic.turn()
        list(rx.collect())
    rx.offer([(rx.buffers, packet.SIZE - 1)], WRITE)
    room.guest.send(1, 1, packet.RW)
    with pytest.raises(GuestError, match="header"):
        room.traffic.turn()


def test_a_request_without_an_answer_expires(room: Room) -> None:
    client, ours = socket.socketpair()
    end = room.traffic.connect(ours, 5005)
    assert end is not None
    assert room.turn() == [packet.REQUEST]
    assert room.traffic.next_due == room.clock() + PATIENCE_S
    room.clock.now += PATIENCE_S
    room.traffic.expire()
    assert room.turn() == [packet.RST]
    assert client.recv(1) == b""
    assert room.traffic.next_due is None
    client.close()


def test_a_new_request_takes_back_a_reset_that_waits(room: Room) -> None:
    room.guest.send(4000, 5006, packet.RW)
    room.guest.send(4000, 5006, packet.REQUEST)
    assert room.turn() == [packet.RESPONSE]


def test_without_queues_nothing_is_connected(room: Room) -> None:
    rx, room.traffic.rx = room.traffic.rx, None
    client, ours = socket.socketpair()
    assert room.traffic.connect(ours, 5005) is None
    room.traffic.rx = rx
    client.close()
    ours.close()


def test_a_reset_is_announced_where_there_is_room_for_it(room: Room) -> None:
    events = room.ring(2)
    assert not announce_reset(events)
    queue = room.guest.events
    queue.offer([(queue.buffers, 8)], WRITE)
    assert announce_reset(events)
    assert [written for _, written in queue.collect()] == [4]
    events.close()
