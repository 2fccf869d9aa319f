from __future__ import annotations

import pytest

from host_stub.vsock import packet
from host_stub.vsock.connections import (
    ROOM_BYTES,
    ROOMY_CONNECTIONS,
    SMALL_ROOM_BYTES,
    Connection,
    Happened,
    HostPorts,
    Key,
    State,
    room_for,
)
from host_stub.vsock.packet import Header

KEY = Key(5005, 1 << 30)
MOD = 1 << 32


def said(op: int, *, length: int = 0, flags: int = 0, room: int = 1000, fwd: int = 0) -> Header:
    return Header(3, 2, KEY.guest_port, KEY.host_port, length, packet.STREAM, op, flags, room, fwd)


def opened(*, room: int = 1000) -> Connection:
    connection = Connection(KEY, room=room)
    assert connection.next_owed() == (packet.REQUEST, 0)
    assert connection.receive(said(packet.RESPONSE)) is Happened.OPENED
    return connection


def test_host_asks_and_the_guest_answers() -> None:
    connection = opened()
    assert connection.state is State.OPEN
    assert not connection.owes
    assert connection.credit == 1000


def test_an_answer_before_the_question_is_a_breach() -> None:
    assert Connection(KEY, room=1).receive(said(packet.RESPONSE)) is Happened.BREACH


def test_guest_asks_and_is_answered_before_anything_else() -> None:
    connection = Connection(KEY, room=1000, request=said(packet.REQUEST, room=77))
    assert (connection.may_send, connection.credit) == (False, 77)
    assert connection.next_owed() == (packet.RESPONSE, 0)
    assert connection.may_send


def test_data_before_our_answer_is_a_breach() -> None:
    connection = Connection(KEY, room=1000, request=said(packet.REQUEST))
    assert connection.receive(said(packet.RW, length=1)) is Happened.BREACH


@pytest.mark.parametrize("op", [packet.REQUEST, packet.RESPONSE, 0, 8, 0xFFFF])
def test_what_does_not_belong_is_a_breach(op: int) -> None:
    connection = opened()
    assert connection.receive(said(op)) is Happened.BREACH
    assert connection.state is State.CLOSED


def test_reset_needs_no_answer() -> None:
    connection = Connection(KEY, room=1)
    assert connection.receive(said(packet.RST)) is Happened.RESET


def test_the_whole_room_may_be_used_and_not_a_byte_more() -> None:
    connection = opened()
    assert connection.receive(said(packet.RW, length=1000)) is Happened.DATA
    connection.passed_on(1)
    assert connection.receive(said(packet.RW, length=1)) is Happened.DATA
    assert connection.receive(said(packet.RW, length=1)) is Happened.BREACH


def test_the_guest_is_told_before_its_room_is_used_up() -> None:
    connection = opened()
    connection.receive(said(packet.RW, length=500))
    connection.passed_on(500)
    assert not connection.owes
    connection.receive(said(packet.RW, length=1))
    connection.passed_on(1)
    assert connection.next_owed() == (packet.CREDIT_UPDATE, 0)
    assert connection.compose(3, 2, packet.CREDIT_UPDATE).fwd_cnt == 501
    assert not connection.owes


def test_every_packet_is_a_credit_update() -> None:
    connection = opened()
    connection.receive(said(packet.CREDIT_REQUEST))
    assert connection.owes
    header = connection.compose(3, 2, packet.RW, length=9)
    assert (header.buf_alloc, header.length, header.src_port, header.dst_port) == (
        1000,
        9,
        KEY.host_port,
        KEY.guest_port,
    )
    assert not connection.owes


def test_credit_is_the_guests_room_less_what_is_under_way() -> None:
    connection = opened()
    connection.sent(900)
    assert connection.credit == 100
    connection.receive(said(packet.CREDIT_UPDATE, fwd=400))
    assert connection.credit == 500
    connection.receive(said(packet.CREDIT_UPDATE, fwd=400, room=100))
    assert connection.credit == 0


def test_counters_go_round() -> None:
    connection = opened(room=1 << 30)
    for _ in range(6):
        assert connection.receive(said(packet.RW, length=1 << 30, room=1 << 30)) is Happened.DATA
        connection.passed_on(1 << 30)
        connection.sent(1 << 30)
        assert connection.credit == 0
        sent = connection.compose(3, 2, packet.RW).fwd_cnt
        connection.receive(said(packet.CREDIT_UPDATE, room=1 << 30, fwd=sent))
        assert connection.credit == 1 << 30


@pytest.mark.parametrize("lie", [301, 99, MOD - 1, 1 << 31])
def test_a_fwd_cnt_that_lies_or_went_back_is_not_taken(lie: int) -> None:
    connection = opened()
    connection.sent(300)
    connection.receive(said(packet.CREDIT_UPDATE, fwd=100))
    connection.receive(said(packet.CREDIT_UPDATE, fwd=lie))
    assert connection.credit == 800


def test_stalling_asks_once_until_credit_comes() -> None:
    connection = opened()
    connection.sent(1000)
    connection.stall()
    assert connection.next_owed() == (packet.CREDIT_REQUEST, 0)
    connection.stall()
    assert not connection.owes
    connection.receive(said(packet.CREDIT_UPDATE, fwd=10))
    connection.sent(10)
    connection.stall()
    assert connection.owes


def test_guest_closes_in_two_steps() -> None:
    connection = opened()
    assert connection.receive(said(packet.SHUTDOWN, flags=packet.SENDS_NO_MORE)) is Happened.HALF_CLOSED
    assert connection.may_send
    assert connection.receive(said(packet.SHUTDOWN, flags=packet.SENDS_NO_MORE)) is Happened.NOTHING
    assert connection.receive(said(packet.RW, length=0)) is Happened.BREACH


def test_guest_closes_at_once() -> None:
    connection = opened()
    assert connection.receive(said(packet.SHUTDOWN, flags=packet.RECEIVES_NO_MORE)) is Happened.HALF_CLOSED
    assert not connection.may_send
    assert connection.receive(said(packet.SHUTDOWN, flags=0xFFFFFFFE)) is Happened.DONE


def test_host_closes_in_two_steps() -> None:
    connection = opened()
    connection.finish(packet.SENDS_NO_MORE)
    assert connection.next_owed() == (packet.SHUTDOWN, packet.SENDS_NO_MORE)
    assert not connection.may_send
    connection.finish(packet.SENDS_NO_MORE)
    assert not connection.owes
    connection.finish(packet.RECEIVES_NO_MORE)
    assert connection.next_owed() == (packet.SHUTDOWN, packet.DONE)


def test_host_ports_go_round_above_a_billion() -> None:
    ports = HostPorts()
    assert [ports.take(), ports.take()] == [1 << 30, (1 << 30) + 1]
    ports._next = (1 << 31) - 1
    assert [ports.take(), ports.take()] == [(1 << 31) - 1, 1 << 30]


def test_room_gets_smaller_with_many() -> None:
    assert room_for(0) == room_for(ROOMY_CONNECTIONS - 1) == ROOM_BYTES
    assert room_for(ROOMY_CONNECTIONS) == SMALL_ROOM_BYTES
