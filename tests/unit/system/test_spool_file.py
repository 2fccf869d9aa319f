"""`system.spool_file`: offsets and holes, on real memfds and pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from coworkd.system import spool_file

PAGE = spool_file.PAGE_BYTES


@pytest.fixture
def fd() -> Iterator[int]:
    made = spool_file.create("test")
    yield made
    os.close(made)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_splice_moves_the_offset_of_every_copy(fd: int, pipe: tuple[int, int]) -> None:
    copy = os.dup(fd)
    os.write(pipe[1], b"hello")
    assert spool_file.splice(pipe[0], fd, 100) == 5
    assert spool_file.end(copy) == 5
    assert os.pread(copy, 100, 0) == b"hello"
    os.close(copy)


def test_splice_takes_no_more_than_its_limit(fd: int, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"hello")
    assert spool_file.splice(pipe[0], fd, 2) == 2
    assert spool_file.splice(pipe[0], fd, 100) == 3
    assert os.pread(fd, 100, 0) == b"hello"


def test_splice_of_an_empty_pipe_does_not_wait(fd: int, pipe: tuple[int, int]) -> None:
    with pytest.raises(BlockingIOError):
        spool_file.splice(pipe[0], fd, 100)


def test_splice_at_the_end_is_zero(fd: int) -> None:
    read, write = os.pipe()
    os.close(write)
    assert spool_file.splice(read, fd, 100) == 0
    os.close(read)


def test_append_goes_on_where_splice_stopped(fd: int, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"one")
    spool_file.splice(pipe[0], fd, 100)
    spool_file.append(fd, b"two")
    assert os.pread(fd, 100, 0) == b"onetwo"
    assert spool_file.end(fd) == 6


def test_first_kept_is_where_the_hole_ends_and_moves_no_offset(fd: int) -> None:
    spool_file.append(fd, b"x" * 3 * PAGE)
    spool_file.punch_hole(fd, 0, 2 * PAGE)
    assert spool_file.first_kept(fd) == 2 * PAGE
    assert spool_file.end(fd) == 3 * PAGE


def test_first_kept_is_the_end_where_nothing_is(fd: int) -> None:
    assert spool_file.first_kept(fd) == 0
    spool_file.append(fd, b"x" * PAGE)
    spool_file.punch_hole(fd, 0, PAGE)
    assert spool_file.first_kept(fd) == PAGE


def test_punch_hole_gives_memory_back_and_keeps_the_rest(fd: int) -> None:
    spool_file.append(fd, b"a" * PAGE + b"b" * PAGE)
    blocks = os.fstat(fd).st_blocks
    spool_file.punch_hole(fd, 0, PAGE)
    assert os.fstat(fd).st_blocks < blocks
    assert os.fstat(fd).st_size == 2 * PAGE
    assert os.pread(fd, 2 * PAGE, 0) == b"\0" * PAGE + b"b" * PAGE


def test_punch_hole_tells_what_the_kernel_refuses() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        spool_file.punch_hole(-1, 0, PAGE)


def test_set_pipe_bytes_is_seen_by_pipe_bytes(pipe: tuple[int, int]) -> None:
    assert spool_file.set_pipe_bytes(pipe[0], 2 * PAGE) == 2 * PAGE
    assert spool_file.pipe_bytes(pipe[1]) == 2 * PAGE
