from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd.loop import IN, OUT, Loop


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    opened = Loop(clock)
    yield opened
    opened.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_ready_descriptor_is_handled_until_it_is_read(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    masks: list[int] = []
    loop.register(near.fileno(), IN, masks.append)
    loop.turn(0)
    far.send(b"x")
    loop.turn()
    loop.turn()
    near.recv(1)
    loop.turn(0)
    assert masks == [IN, IN]


def test_the_mask_can_be_changed(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    masks: list[int] = []
    loop.register(ends[0].fileno(), IN, masks.append)
    loop.modify(ends[0].fileno(), OUT)
    loop.turn()
    assert masks == [OUT]


def test_the_handler_can_be_changed(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    said: list[str] = []
    loop.register(ends[0].fileno(), OUT, lambda _: said.append("first"))
    loop.handle(ends[0].fileno(), lambda _: said.append("second"))
    loop.turn()
    assert said == ["second"]


def test_what_was_unregistered_is_not_handled_in_this_turn_either(loop: Loop) -> None:
    """Both are ready; whichever comes first takes the other away."""
    pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(2)]
    handled: list[int] = []

    def take_away(fd: int, other: int) -> None:
        handled.append(fd)
        loop.unregister(other)
        loop.unregister(fd)

    (first, _), (second, _) = pipes
    loop.register(first, IN, lambda _: take_away(first, second))
    loop.register(second, IN, lambda _: take_away(second, first))
    for _, write in pipes:
        os.write(write, b"x")
    loop.turn()
    loop.turn(0)
    assert len(handled) == 1
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


def test_a_forgotten_descriptor_leaves_its_number_to_the_next(loop: Loop) -> None:
    read, write = os.pipe()
    loop.register(read, IN, lambda _: pytest.fail("that one is closed"))
    loop.forget(read)
    os.close(read)
    os.close(write)
    again = os.pipe()
    assert read in again
    masks: list[int] = []
    loop.register(again[0], IN, masks.append)
    os.write(again[1], b"x")
    loop.turn()
    assert masks == [IN]
    os.close(again[0])
    os.close(again[1])


def test_timers_come_in_the_order_of_their_times(loop: Loop, clock: Clock) -> None:
    said: list[str] = []
    loop.call_later(2, lambda: said.append("late"))
    loop.call_later(1, lambda: said.append("early"))
    loop.call_later(1, lambda: said.append("early too"))
    loop.turn(0)
    assert said == []
    clock.now += 1
    loop.turn()
    assert said == ["early", "early too"]
    clock.now += 1
    loop.turn()
    assert said == ["early", "early too", "late"]


def test_a_cancelled_timer_is_not_called(loop: Loop, clock: Clock) -> None:
    timer = loop.call_later(1, lambda: pytest.fail("it was cancelled"))
    timer.cancel()
    clock.now += 2
    loop.turn(0)


def test_soon_is_the_next_turn_and_the_loop_does_not_wait_for_it(loop: Loop) -> None:
    said: list[str] = []

    def first() -> None:
        said.append("first")
        loop.soon(lambda: said.append("second"))

    loop.soon(first)
    loop.turn()
    assert said == ["first"]
    loop.turn()
    assert said == ["first", "second"]


def test_each_turn_ends_with_the_same_call(loop: Loop) -> None:
    said: list[str] = []
    loop.at_end_of_turn(lambda: said.append("end"))
    loop.soon(lambda: said.append("work"))
    loop.turn()
    assert said == ["work", "end"]


def test_run_ends_after_the_turn_that_stopped_it(loop: Loop) -> None:
    said: list[str] = []
    loop.at_end_of_turn(lambda: said.append("end"))
    loop.soon(loop.stop)
    loop.run()
    assert said == ["end"]
