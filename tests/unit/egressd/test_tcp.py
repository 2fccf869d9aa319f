from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd.loop import OUT, Loop
from coworkd.egressd.tcp import UNSENT_BYTES, bound_unsent, no_delay, reset, room
from tests.unit.egressd.sockets import fill, tcp_pair


@pytest.fixture
def loop() -> Iterator[Loop]:
    opened = Loop()
    yield opened
    opened.close()


@pytest.mark.parametrize("bounded", [False, True])
def test_room_is_what_the_buffer_surely_takes(bounded: bool) -> None:
    near, far = tcp_pair()
    if bounded:
        assert bound_unsent(near)
    first = room(near, bounded=bounded)
    assert first > 64 * 1024
    assert near.send(bytes(first)) == first
    filled = fill(near)
    assert room(near, bounded=bounded) == 0
    if bounded:
        assert first + filled < 2 * UNSENT_BYTES + far.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    near.close()
    far.close()


def test_room_and_epoll_agree(loop: Loop) -> None:
    """Otherwise a stalled direction would be woken up for nothing, again and again."""
    near, far = tcp_pair()
    bound_unsent(near)
    ready: list[int] = []
    loop.register(near.fileno(), OUT, ready.append)
    for _ in range(400):
        ready.clear()
        loop.turn(0)
        assert bool(ready) == (room(near, bounded=True) > 0)
        with contextlib.suppress(BlockingIOError):
            near.send(bytes(10_000))
        far.recv(3000)
    near.close()
    far.close()


def test_a_unix_socket_has_no_bound_but_its_buffer() -> None:
    near, far = socket.socketpair()
    assert not bound_unsent(near)
    assert room(near, bounded=False) > 64 * 1024
    near.close()
    far.close()


def test_a_reset_is_one() -> None:
    near, far = tcp_pair()
    reset(near)
    near.close()
    with pytest.raises(ConnectionResetError):
        far.recv(1)
    far.close()


def test_small_pieces_go_at_once_where_there_is_such_a_choice() -> None:
    near, far = tcp_pair()
    no_delay(near)
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    ours, theirs = socket.socketpair()
    no_delay(ours)
    for connection in (near, far, ours, theirs):
        connection.close()
