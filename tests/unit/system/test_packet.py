from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from coworkd.model.launch import INLINE_LIMIT_BYTES, MESSAGE_LIMIT_BYTES
from coworkd.system import packet
from coworkd.system.packet import BrokenPacket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    before = set(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs
    assert set(os.listdir("/proc/self/fd")) == before


def send(to: socket.socket, message: bytes, fds: tuple[int, ...] = ()) -> None:
    data, ancillary, memfd = packet.pack(message, fds)
    to.sendmsg(data, ancillary)
    if memfd >= 0:
        os.close(memfd)


def receive(from_: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, flags, _ = from_.recvmsg(*packet.RECEIVE_ARGUMENTS)
    return packet.unpack(data, ancillary, flags)


@pytest.mark.parametrize("size", [1, 2, INLINE_LIMIT_BYTES, INLINE_LIMIT_BYTES + 1, 3_000_000])
def test_a_message_of_any_size_comes_through(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    message = os.urandom(size - 1) + b"!"
    send(pair[0], message)
    assert receive(pair[1]) == (message, [])


@pytest.mark.parametrize("size", [10, INLINE_LIMIT_BYTES + 1])
def test_descriptors_come_in_order_and_are_not_inherited(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    sent = [os.memfd_create(name) for name in ("a", "b")]
    send(pair[0], b"x" * size, tuple(sent))
    _, got = receive(pair[1])
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in got] == ["/memfd:a (deleted)", "/memfd:b (deleted)"]
    assert not any(map(os.get_inheritable, got))
    for fd in [*sent, *got]:
        os.close(fd)


def test_the_end_of_the_conversation_is_an_empty_message(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert receive(pair[1]) == (b"", [])


def test_a_message_cut_off_closes_what_came_with_it(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = os.memfd_create("a")
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    socket.send_fds(pair[0], [b"x" * (INLINE_LIMIT_BYTES + 2)], [fd])
    with pytest.raises(BrokenPacket, match="longer"):
        receive(pair[1])
    os.close(fd)


def test_too_many_descriptors_are_all_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = os.memfd_create("a")
    socket.send_fds(pair[0], [b"x"], [fd] * (packet.FD_LIMIT + 10))
    with pytest.raises(BrokenPacket):
        receive(pair[1])
    os.close(fd)


def test_a_long_message_without_its_memfd_is_broken(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(b"\0")
    with pytest.raises(BrokenPacket, match="memfd"):
        receive(pair[1])


def test_a_memfd_over_the_bound_is_broken_and_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    fds = [os.memfd_create("a"), os.memfd_create("b")]
    os.ftruncate(fds[0], MESSAGE_LIMIT_BYTES + 1)
    socket.send_fds(pair[0], [b"\0"], fds)
    with pytest.raises(BrokenPacket, match="over the bound"):
        receive(pair[1])
    for fd in fds:
        os.close(fd)


def test_a_pipe_in_place_of_a_memfd_is_an_error_and_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    fds = os.pipe()
    os.write(fds[1], b"never read")
    socket.send_fds(pair[0], [b"\0"], list(fds))
    with pytest.raises(OSError, match="seek"):
        receive(pair[1])
    for fd in fds:
        os.close(fd)
