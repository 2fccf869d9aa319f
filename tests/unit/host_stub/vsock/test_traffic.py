from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from host_stub.vsock import packet
from host_stub.vsock.memory import GuestError
from host_stub.vsock.packet import Header
from host_stub.vsock.ring import WRITE
from host_stub.vsock.traffic import PATIENCE_S, RESETS_LIMIT, TURN_PACKETS, announce_reset
from tests.unit.host_stub.vsock.driver import QUEUE_SIZE, Bench, is_closed, ops, read_all
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


# -- breaches ---------------------------------------------------------------------------------------------------------


def test_data_beyond_credit_resets_that_connection_only(bench: Bench) -> None:
    one, one_port = bench.open_to_guest()
    other, other_port = bench.open_to_guest()
    resets: list[int] = []
    for _ in range(64):
        bench.guest.send(5005, one_port, packet.RW, bytes(8192))
        resets += [header.src_port for header, _ in bench.packets() if header.op == packet.RST]
        if resets:
            break
    assert resets == [one_port]
    bench.guest.send(5005, other_port, packet.RW, b"unharmed")
    bench.settle()
    assert other.recv(100) == b"unharmed"
    read_all(one)
    assert is_closed(one)


def test_data_before_the_answer_is_a_breach(bench: Bench) -> None:
    client = bench.client(5005)
    ((request, _),) = bench.packets()
    bench.guest.send(5005, request.src_port, packet.RW, b"early")
    assert ops(bench.packets()) == [packet.RST]
    assert is_closed(client)


def test_a_second_request_is_a_breach(bench: Bench) -> None:
    service = bench.service(5006)
    host = bench.open_to_host(service, 5006)
    bench.guest.send(4000, 5006, packet.REQUEST)
    assert ops(bench.packets()) == [packet.RST]
    assert is_closed(host)


def test_data_after_the_shutdown_is_a_breach(bench: Bench) -> None:
    _, host_port = bench.open_to_guest()
    bench.guest.send(5005, host_port, packet.SHUTDOWN, flags=packet.SENDS_NO_MORE)
    bench.guest.send(5005, host_port, packet.RW, b"more")
    assert ops(bench.packets()) == [packet.RST]


@pytest.mark.parametrize("op", [0, 8, 999])
def test_an_unknown_operation_is_a_breach(bench: Bench, op: int) -> None:
    _, host_port = bench.open_to_guest()
    bench.guest.send(5005, host_port, op)
    assert ops(bench.packets()) == [packet.RST]


def test_a_header_that_claims_more_than_there_is_is_a_breach(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    bench.guest.send(5005, host_port, packet.RW, b"four", length=5000)
    assert ops(bench.packets()) == [packet.RST]
    assert is_closed(client)


def test_a_header_that_claims_less_is_believed(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    bench.guest.send(5005, host_port, packet.RW, b"four", length=2)
    bench.settle()
    assert client.recv(100) == b"fo"


# -- credit -----------------------------------------------------------------------------------------------------------


def test_the_guest_gets_no_more_than_it_has_room_for(bench: Bench) -> None:
    client, host_port = bench.open_to_guest(room=5000)
    client.send(bytes(9000))
    packets = bench.packets()
    assert sum(len(data) for _, data in packets) == 5000
    assert ops(packets)[-1] == packet.CREDIT_REQUEST
    assert bench.packets() == []
    bench.guest.send(5005, host_port, packet.CREDIT_UPDATE, buf_alloc=5000, fwd_cnt=5000)
    assert sum(len(data) for _, data in bench.packets()) == 4000


def test_a_credit_request_is_answered_once_however_often_it_comes(bench: Bench) -> None:
    _, host_port = bench.open_to_guest()
    for _ in range(5):
        bench.guest.send(5005, host_port, packet.CREDIT_REQUEST)
    packets = bench.packets()
    assert ops(packets) == [packet.CREDIT_UPDATE]
    assert packets[0][0].buf_alloc == 256 * 1024


def test_fwd_cnt_that_goes_back_or_lies_is_not_taken(bench: Bench) -> None:
    client, host_port = bench.open_to_guest(room=100)
    client.send(bytes(300))
    assert sum(len(data) for _, data in bench.packets()) == 100
    bench.guest.send(5005, host_port, packet.CREDIT_UPDATE, buf_alloc=100, fwd_cnt=60)
    assert sum(len(data) for _, data in bench.packets()) == 60
    for lie in (50, 1 << 31, 161, 0xFFFFFFFF):
        bench.guest.send(5005, host_port, packet.CREDIT_UPDATE, buf_alloc=100, fwd_cnt=lie)
    assert sum(len(data) for _, data in bench.packets()) == 0


def test_a_host_that_does_not_read_stops_only_its_own_connection(bench: Bench) -> None:
    _lazy, lazy_port = bench.open_to_guest()
    busy, busy_port = bench.open_to_guest()
    for _ in range(24):
        bench.guest.send(5005, lazy_port, packet.RW, bytes(8192))
        bench.settle()
    bench.guest.send(5005, busy_port, packet.RW, b"quick")
    bench.settle()
    assert busy.recv(10) == b"quick"


def test_the_guest_hears_when_a_host_that_lagged_has_read(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    sent = 0
    while sent + 8192 <= 256 * 1024:
        bench.guest.send(5005, host_port, packet.RW, bytes(8192))
        bench.settle()
        sent += 8192
    heard = bench.packets()
    got = 0
    for _ in range(1000):
        got += len(read_all(client))
        bench.settle()
        if got == sent:
            break
    heard += bench.packets()
    updates = [header.fwd_cnt for header, _ in heard if header.op == packet.CREDIT_UPDATE]
    assert updates
    assert sent - updates[-1] <= 128 * 1024


def test_a_guest_without_buffers_costs_no_turns_and_no_bytes(bench: Bench) -> None:
    client, _ = bench.open_to_guest()
    bench.settle()
    client.send(bytes(200_000))
    bench.settle()
    first = bench.guest.take_all(refill=False)
    assert 0 < len(first) <= QUEUE_SIZE
    assert bench.settle() == 0
    bench.guest.refill()
    rest: list[tuple[Header, bytes]] = []
    while packets := bench.packets():
        rest += packets
    assert sum(len(data) for _, data in first + rest) == 200_000


def test_a_flood_of_packets_to_nowhere_stops_the_guests_own_queue(bench: Bench) -> None:
    """The guest takes no answers: so it is not listened to any more, until it does."""
    while bench.guest.rx.free or bench.guest.rx.chains:
        bench.guest.take_all(refill=False)
        if not bench.guest.rx.chains:
            break
        bench.guest.send(1, 1, packet.RW)
        bench.settle()
    sent = 0
    for port in range(RESETS_LIMIT + QUEUE_SIZE):
        list(bench.guest.tx.collect())
        if not bench.guest.tx.free:
            break
        bench.guest.send(port, 9, packet.RW)
        bench.settle()
        sent += 1
    assert RESETS_LIMIT <= sent <= RESETS_LIMIT + QUEUE_SIZE
    assert not bench.guest.tx.free
    answers: list[tuple[Header, bytes]] = []
    bench.guest.refill()
    while packets := bench.packets():
        answers += packets
    assert ops(answers) == [packet.RST] * sent
