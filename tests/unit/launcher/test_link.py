from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import msgspec
import pytest

from coworkd.launcher.link import SupervisorLink
from coworkd.model.launch import Done, Keep, Ping, Request
from coworkd.system import packet
from tests.unit.launcher.launcher_room import open_fds

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


def answer(supervisor: socket.socket) -> tuple[Done, list[int]]:
    data, ancillary, flags, _ = supervisor.recvmsg(*packet.RECEIVE_ARGUMENTS)
    message, fds = packet.unpack(data, ancillary, flags)
    return msgspec.msgpack.decode(message, type=Done), fds


def test_a_request_comes_with_its_descriptors(pair: Pair) -> None:
    link, supervisor = pair
    fd = os.memfd_create("tty")
    ask(supervisor, Keep(id=1, process="p", name="tty"), fd)
    received = link.receive()
    assert received is not None
    request, fds = received
    assert request == Keep(id=1, process="p", name="tty")
    assert [os.readlink(f"/proc/self/fd/{got}") for got in fds] == ["/memfd:tty (deleted)"]
    for got in (fd, *fds):
        os.close(got)


def test_nothing_to_receive_is_none_and_no_end(pair: Pair) -> None:
    link, _ = pair
    assert link.receive() is None
    assert not link.closed


@pytest.mark.parametrize(
    "message",
    [
        b"junk",
        b"\xc1",
        msgspec.msgpack.encode({"type": "no_such_word", "id": 1}),
        msgspec.msgpack.encode({"type": "ping"}),
        msgspec.msgpack.encode({"type": "spawn", "id": 1, "filters": ["a"]}),
    ],
)
def test_a_supervisor_that_breaks_the_words_is_cut_off(pair: Pair, message: bytes) -> None:
    link, supervisor = pair
    fd = os.memfd_create("x")
    socket.send_fds(supervisor, [message], [fd])
    os.close(fd)
    assert link.receive() is None
    assert link.closed


def test_a_spawn_with_one_filter_is_no_word(pair: Pair) -> None:
    from msgspec import structs

    from tests.unit.launcher.launcher_room import SPAWN

    link, supervisor = pair
    ask(supervisor, structs.replace(SPAWN, filters=("a" * 64,)))
    assert link.receive() is None
    assert link.closed


def test_the_end_of_the_peer_is_the_end(pair: Pair) -> None:
    link, supervisor = pair
    supervisor.close()
    assert link.receive() is None
    assert link.closed


def test_a_full_socket_keeps_order_and_descriptors(pair: Pair) -> None:
    link, supervisor = pair
    count = 2000
    for number in range(count):
        fd = os.memfd_create(str(number))
        link.send(Done(id=number, degraded=("x" * 1000,)), [fd])
        os.close(fd)
    assert link.behind
    for number in range(count):
        done, fds = answer(supervisor)
        assert done.id == number
        assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [f"/memfd:{number} (deleted)"]
        for fd in fds:
            os.close(fd)
        link.flush()
    assert not link.behind


def test_what_has_to_wait_and_finds_no_descriptors_leaves_none(pair: Pair) -> None:
    link, _ = pair
    while not link.behind:
        link.send(Done(id=1, degraded=("x" * 10_000,)))
    before = open_fds()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            link.send(Done(id=2), [0] * (max(map(int, before)) + 3))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_fds() == before


def test_closing_lets_go_of_what_waits(pair: Pair) -> None:
    link, _ = pair
    fd = os.memfd_create("waits")
    while not link.behind:
        link.send(Done(id=1, degraded=("x" * 10_000,)), [fd])
    os.close(fd)
    link.close()
    assert link.closed
    assert not link.behind


def test_a_peer_that_is_gone_takes_everything(pair: Pair) -> None:
    link, supervisor = pair
    supervisor.close()
    link.send(Done(id=1))
    assert link.closed
    assert not link.behind


def test_a_message_over_the_inline_bound_comes_through(pair: Pair) -> None:
    link, supervisor = pair
    link.send(Done(id=5, degraded=("x" * 100_000,)))
    assert answer(supervisor)[0].degraded == ("x" * 100_000,)
    ask(supervisor, Ping(id=9))
    assert link.receive() == (Ping(id=9), [])
