from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from coworkd.system.splice import open_pipe, readable_bytes, resize_pipe, splice

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = open_pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_splice_moves_what_is_there(ends: Ends, pipe: tuple[int, int]) -> None:
    near, far = ends
    far.send(b"forward")
    assert splice(near.fileno(), pipe[1], 65536) == 7
    assert readable_bytes(pipe[0]) == 7
    assert splice(pipe[0], near.fileno(), 7) == 7
    assert far.recv(64) == b"forward"


def test_splice_of_nothing_blocks_not(ends: Ends, pipe: tuple[int, int]) -> None:
    with pytest.raises(BlockingIOError):
        splice(ends[0].fileno(), pipe[1], 1)


def test_splice_at_the_end_of_file_is_zero(ends: Ends, pipe: tuple[int, int]) -> None:
    ends[1].shutdown(socket.SHUT_WR)
    assert splice(ends[0].fileno(), pipe[1], 1) == 0


def test_splice_into_a_full_socket_leaves_the_rest_in_the_pipe(ends: Ends, pipe: tuple[int, int]) -> None:
    near, _ = ends
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(65536))
    os.write(pipe[1], b"left")
    with pytest.raises(BlockingIOError):
        splice(pipe[0], near.fileno(), 4)
    assert readable_bytes(pipe[0]) == 4


def test_a_pipe_has_the_size_asked_for() -> None:
    read, write = open_pipe(256 * 1024)
    assert os.write(write, bytes(512 * 1024)) == 256 * 1024
    with pytest.raises(OSError, match="busy"):
        resize_pipe(write, 4096)
    os.close(read)
    os.close(write)


def test_pipes_are_closed_on_exec_and_do_not_block(pipe: tuple[int, int]) -> None:
    assert not any(os.get_inheritable(fd) or os.get_blocking(fd) for fd in pipe)
