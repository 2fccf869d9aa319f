from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from coworkd.launcher.readers import Readers
from tests.unit.launcher.launcher_room import open_fds


@pytest.fixture
def readers() -> Iterator[Readers]:
    before = open_fds()
    made = Readers()
    yield made
    made.close()
    assert open_fds() == before


class Pipe:
    """A pipe whose reads are noted."""

    def __init__(self, readers: Readers) -> None:
        self.read, self.write = os.pipe()
        self.got: list[bytes] = []
        readers.register(self.read, self.take)

    def take(self) -> None:
        self.got.append(os.read(self.read, 10))

    def close(self) -> None:
        for fd in (self.read, self.write):
            os.close(fd)


def test_who_is_ready_is_called(readers: Readers) -> None:
    pipe = Pipe(readers)
    readers.call_ready(0)
    assert pipe.got == []
    os.write(pipe.write, b"x")
    readers.call_ready(None)
    readers.call_ready(0)
    assert pipe.got == [b"x"]
    pipe.close()


def test_an_end_is_ready(readers: Readers) -> None:
    pipe = Pipe(readers)
    os.close(pipe.write)
    readers.call_ready(None)
    assert pipe.got == [b""]
    os.close(pipe.read)


def test_who_was_unregistered_is_not_called_even_in_the_same_round(readers: Readers) -> None:
    pipes = [Pipe(readers) for _ in range(2)]
    for pipe, other in (pipes, reversed(pipes)):
        readers.unregister(pipe.read)
        readers.register(pipe.read, partial(take_for_both, readers, pipe, other))
        os.write(pipe.write, b"x")
    readers.call_ready(None)
    assert sorted(pipe.got for pipe in pipes) == [[], [b"x"]]
    for pipe in pipes:
        pipe.close()


def take_for_both(readers: Readers, pipe: Pipe, other: Pipe) -> None:
    pipe.take()
    readers.unregister(other.read)


def test_a_number_that_was_given_out_anew_is_not_called_for_its_last_owner(readers: Readers) -> None:
    pipes = [Pipe(readers) for _ in range(2)]
    fresh: list[int] = []
    called: list[str] = []

    def replace(mine: Pipe, other: Pipe) -> None:
        mine.take()
        readers.drop(other.read)
        fresh.extend(os.pipe())
        os.dup2(fresh[0], other.read)
        readers.register(other.read, lambda: called.append("new"))

    for pipe, other in (pipes, reversed(pipes)):
        readers.unregister(pipe.read)
        readers.register(pipe.read, partial(replace, pipe, other))
        os.write(pipe.write, b"x")
    readers.call_ready(None)
    assert called == []
    os.write(fresh[1], b"y")
    readers.call_ready(None)
    assert called == ["new"]
    for fd in {*fresh, *(fd for pipe in pipes for fd in (pipe.read, pipe.write))}:
        os.close(fd)


def test_what_is_unknown_is_unregistered_already(readers: Readers) -> None:
    pipe = Pipe(readers)
    readers.unregister(pipe.write)
    readers.unregister(-1)
    readers.drop(pipe.read)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe.read)
    readers.unregister(pipe.read)
    os.close(pipe.write)


def test_room_is_waited_for_only_while_it_is_wanted(readers: Readers) -> None:
    called: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        readers.register(ours.fileno(), lambda: called.append("called"))
        readers.call_ready(0)
        readers.want_room(ours.fileno(), wanted=True)
        readers.want_room(ours.fileno(), wanted=True)
        readers.call_ready(0)
        assert called == ["called"]
        readers.want_room(ours.fileno(), wanted=False)
        readers.call_ready(0)
        assert called == ["called"]
        readers.unregister(ours.fileno())


def test_what_is_not_heeded_wakes_nobody_and_is_still_there_when_it_is(readers: Readers) -> None:
    pipe = Pipe(readers)
    readers.heed(pipe.read, wanted=False)
    os.write(pipe.write, b"x")
    readers.call_ready(0)
    assert pipe.got == []
    readers.heed(pipe.read, wanted=True)
    readers.call_ready(None)
    assert pipe.got == [b"x"]
    readers.heed(pipe.read, wanted=False)
    os.close(pipe.write)
    readers.call_ready(None)
    assert pipe.got == [b"x", b""]
    os.close(pipe.read)


def test_an_end_can_be_waited_for_alone(readers: Readers) -> None:
    read, write = os.pipe()
    called: list[str] = []
    readers.register_end(read, lambda: called.append("end"))
    os.write(write, b"+")
    readers.call_ready(0)
    assert called == []
    os.close(write)
    readers.call_ready(None)
    assert called == ["end"]
    readers.drop(read)


def test_urgent_news_are_told_apart_from_what_can_be_read(readers: Readers) -> None:
    ours, theirs = _connected_pair()
    called: list[str] = []
    with ours, theirs:
        readers.register_urgent(ours.fileno(), lambda: called.append("urgent"))
        theirs.send(b"plain")
        readers.call_ready(0)
        assert called == []
        theirs.send(b"!", socket.MSG_OOB)
        readers.call_ready(None)
        assert called == ["urgent"]
        readers.unregister(ours.fileno())


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection: out-of-band data is what EPOLLPRI can be had with by a test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        return ours, theirs
