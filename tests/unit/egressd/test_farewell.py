from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd.farewell import Farewell
from coworkd.egressd.loop import Loop
from tests.unit.egressd.sockets import fill, read_all, tcp_pair, turn_until

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def loop() -> Iterator[Loop]:
    opened = Loop()
    yield opened
    opened.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, client = tcp_pair()
    yield ours, client
    ours.close()
    client.close()


def test_the_words_arrive_although_the_client_is_still_sending(loop: Loop, ends: Ends) -> None:
    ours, client = ends
    client.send(b"more than was read")
    over: list[bool] = []
    Farewell(loop, ours, b"last words", lambda: over.append(True)).start(registered=False)
    client.send(b"and more")
    loop.turn(0.01)
    assert over == []
    assert client.recv(100) == b"last words"
    assert client.recv(1) == b""
    client.close()
    turn_until(loop, lambda: over)


def test_a_client_that_has_ended_is_not_waited_for(loop: Loop, ends: Ends) -> None:
    ours, client = ends
    client.shutdown(socket.SHUT_WR)
    turn_until(loop, lambda: has_ended(ours))
    over: list[bool] = []
    Farewell(loop, ours, b"last words", lambda: over.append(True)).start(registered=False)
    assert over == [True]
    assert client.recv(100) == b"last words"


def has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def test_words_that_do_not_fit_wait_for_room(loop: Loop, ends: Ends) -> None:
    ours, client = ends
    before = fill(ours)
    over: list[bool] = []
    Farewell(loop, ours, b"last words", lambda: over.append(True)).start(registered=False)
    got = b""

    def heard() -> bool:
        nonlocal got
        got += read_all(client)
        return got.endswith(b"last words")

    turn_until(loop, heard)
    assert len(got) == before + 10
    client.close()
    turn_until(loop, lambda: over)


def test_one_who_never_stops_sending_is_closed(loop: Loop, ends: Ends) -> None:
    ours, client = ends
    over: list[bool] = []
    Farewell(loop, ours, b"", lambda: over.append(True)).start(registered=False)

    def closed() -> bool:
        try:
            fill(client)
        except OSError:
            return True
        return bool(over)

    turn_until(loop, closed)
    turn_until(loop, lambda: over)


def test_it_can_be_cut(loop: Loop, ends: Ends) -> None:
    ours, client = ends
    over: list[bool] = []
    farewell = Farewell(loop, ours, b"", lambda: over.append(True))
    assert farewell.deadline == loop.now + 1
    farewell.start(registered=False)
    farewell.cut()
    farewell.cut()
    assert over == [True]
    assert client.recv(1) == b""
