from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from coworkd.egressd.link import SupervisorLink
from coworkd.model.egress import Begin, Done, EgressEvent, Reply, Request, Serve, SessionEgress, Told
from coworkd.system import packet
from tests.unit.egressd.sockets import open_fds

Pair = tuple[SupervisorLink, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = open_fds()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = SupervisorLink(ours)
    with theirs:
        theirs.settimeout(60)
        yield link, theirs
    link.close()
    assert open_fds() == before


def ask(supervisor: socket.socket, request: Request, *fds: int) -> None:
    data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(request), fds)
    supervisor.sendmsg(data, ancillary)
    if memfd >= 0:
        os.close(memfd)


def reply(supervisor: socket.socket) -> Reply:
    data, ancillary, flags, _ = supervisor.recvmsg(*packet.RECEIVE_ARGUMENTS)
    message, _ = packet.unpack(data, ancillary, flags)
    decoded: Reply = msgspec.msgpack.decode(message, type=Reply)
    return decoded


def event(seq: int) -> EgressEvent:
    return EgressEvent(seq=seq, kind="open", session="s", connection=seq, at=1.0, protocol="connect")


def test_a_request_comes_with_its_descriptors(pair: Pair) -> None:
    link, supervisor = pair
    with socket.socket() as listener:
        ask(supervisor, Serve(id=1, session="s", egress=SessionEgress(settings=())), listener.fileno())
    received = link.receive()
    assert received is not None
    request, fds = received
    assert request == Serve(id=1, session="s", egress=SessionEgress(settings=()))
    assert len(fds) == 1
    os.close(fds[0])


def test_a_long_request_comes_in_a_memfd(pair: Pair) -> None:
    link, supervisor = pair
    ask(supervisor, Begin(id=1, version="1", filter_bpf=bytes(300_000), host_uri=""))
    received = link.receive()
    assert received is not None
    assert isinstance(received[0], Begin)
    assert received[1] == []


def test_nothing_to_receive_is_none_and_no_end(pair: Pair) -> None:
    link, _ = pair
    assert link.receive() is None
    assert not link.closed


@pytest.mark.parametrize("said", [b"garbage", b"\x00", msgspec.msgpack.encode(Done(id=1)), b""])
def test_a_supervisor_that_breaks_the_words_is_cut_off(pair: Pair, said: bytes) -> None:
    link, supervisor = pair
    if said:
        supervisor.send(said)
    else:
        supervisor.shutdown(socket.SHUT_WR)
    assert link.receive() is None
    assert link.closed


def test_answers_wait_in_order_for_a_slow_supervisor(pair: Pair) -> None:
    link, supervisor = pair
    for number in range(900):
        link.answer(Done(id=number))
    assert link.behind
    assert not link.tell([event(1)])
    got: list[Reply] = []
    while len(got) < 900:
        got.append(reply(supervisor))
        link.flush()
    assert got == [Done(id=number) for number in range(900)]
    assert not link.behind


def test_a_supervisor_that_never_reads_is_cut_off(pair: Pair) -> None:
    link, _ = pair
    for number in range(5000):
        link.answer(Done(id=number))
        if link.closed:
            break
    assert link.closed
    assert number < 2500


def test_events_are_told_or_left(pair: Pair) -> None:
    link, supervisor = pair
    assert link.tell([event(1), event(2)])
    assert reply(supervisor) == Told(events=(event(1), event(2)))
    told = 0
    while link.tell([event(1)]):
        told += 1
    assert told
    assert not link.behind
    assert not link.closed


def test_a_peer_that_is_gone_closes_the_link(pair: Pair) -> None:
    link, supervisor = pair
    supervisor.close()
    link.answer(Done(id=1))
    assert link.closed
