from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from host_stub.vsock.loop import EDGES, IN, NOTHING, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def kick() -> Iterator[int]:
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_a_handler_is_called_while_its_descriptor_is_ready(loop: Loop, kick: int) -> None:
    masks: list[int] = []
    loop.register(kick, IN, masks.append)
    assert (loop.turn(0), loop.turn(0)) == (1, 1)
    os.read(kick, 8)
    assert loop.turn(0) == 0
    assert masks == [IN, IN]


def test_an_edge_is_told_once(loop: Loop, kick: int) -> None:
    masks: list[int] = []
    loop.register(kick, IN | EDGES, masks.append)
    assert [loop.turn(0), loop.turn(0)] == [1, 0]
    os.eventfd_write(kick, 1)
    assert loop.turn(0) == 1


def test_what_is_not_asked_for_is_not_told(loop: Loop, kick: int) -> None:
    loop.register(kick, IN, lambda _: None)
    loop.modify(kick, NOTHING)
    assert loop.turn(0) == 0
    loop.modify(kick, IN)
    assert loop.turn(0) == 1


def test_a_handler_may_take_another_away_in_the_same_turn(loop: Loop, kick: int) -> None:
    other = os.eventfd(1)
    called: list[int] = []

    def first(fd: int, rival: int) -> None:
        called.append(fd)
        loop.unregister(rival)

    loop.register(kick, IN, lambda _: first(kick, other))
    loop.register(other, IN, lambda _: first(other, kick))
    loop.turn(0)
    os.close(other)
    assert len(called) == 1


def test_unregistering_twice_is_nothing(loop: Loop, kick: int) -> None:
    loop.register(kick, IN, lambda _: None)
    loop.unregister(kick)
    loop.unregister(kick)
    assert loop.turn(0) == 0
