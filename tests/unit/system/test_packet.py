from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from coworkd.model.launch import INLINE_LIMIT_BYTES, MESSAGE_LIMIT_BYTES
from coworkd.system import packet
from coworkd.system.packet import BrokenPacket, OutOfDescriptors


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


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Room for `count` descriptors and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Without the descriptor of the listing itself.
    taken = {int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}
    free = [number for number in range(max(taken) + count + 2) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_message_whose_descriptors_find_no_room_is_whole(
    pair: tuple[socket.socket, socket.socket], left: int
) -> None:
    fd = os.memfd_create("a")
    socket.send_fds(pair[0], [b"said"], [fd] * 3)
    send(pair[0], b"next")
    with descriptors_left(left), pytest.raises(OutOfDescriptors) as caught:
        receive(pair[1])
    assert caught.value.message == b"said"
    assert receive(pair[1]) == (b"next", [])
    os.close(fd)


def test_a_long_message_that_finds_no_room_is_broken(pair: tuple[socket.socket, socket.socket]) -> None:
    send(pair[0], bytes(INLINE_LIMIT_BYTES + 1))
    with descriptors_left(0), pytest.raises(BrokenPacket) as caught:
        receive(pair[1])
    assert not isinstance(caught.value, OutOfDescriptors)


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


def test_what_may_be_waited_for_is_never_read_in_place_of_a_memfd(pair: tuple[socket.socket, socket.socket]) -> None:
    fds = [*os.pipe(), os.open("/proc/self/cmdline", os.O_RDONLY)]
    os.write(fds[1], b"never read")
    for fd in fds:
        socket.send_fds(pair[0], [b"\0"], [fd])
        with pytest.raises(BrokenPacket, match="no memory"):
            receive(pair[1])
        os.close(fd)
