from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from coworkd.launcher.status import StatusReader
from tests.unit.launcher.launcher_room import open_fds


class Pipe:
    def __init__(self) -> None:
        read, self.write_fd = os.pipe2(os.O_NONBLOCK)
        self.reader = StatusReader(read)

    def write(self, data: bytes) -> None:
        os.write(self.write_fd, data)

    def close(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    before = open_fds()
    made = Pipe()
    yield made
    made.close()
    made.reader.close()
    assert open_fds() == before


def test_status_tells_init_and_exit_code(pipe: Pipe) -> None:
    pipe.write(b'{ "child-pid": 42, "cgroup-namespace": 7 }\n{ "exit-code": 3 }\n')
    assert pipe.reader.read()
    assert (pipe.reader.init_pid, pipe.reader.exit_code, pipe.reader.ended) == (42, 3, False)


def test_status_reads_lines_cut_anywhere(pipe: Pipe) -> None:
    for byte in b'{ "child-pid": 42 }\n':
        assert pipe.reader.init_pid is None
        pipe.write(bytes([byte]))
        pipe.reader.read()
    assert pipe.reader.init_pid == 42


def test_status_says_that_nothing_is_there(pipe: Pipe) -> None:
    assert not pipe.reader.read()
    assert not pipe.reader.ended


def test_status_ends_with_its_pipe(pipe: Pipe) -> None:
    pipe.write(b'{ "exit-code": 0 }\n')
    pipe.close()
    pipe.reader.drain()
    assert pipe.reader.ended
    assert pipe.reader.exit_code == 0
    assert pipe.reader.init_pid is None


def test_drain_ends_where_a_writer_still_lives(pipe: Pipe) -> None:
    pipe.write(b'{ "child-pid": 1 }\n')
    pipe.reader.drain()
    assert pipe.reader.init_pid == 1
    assert not pipe.reader.ended


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[1]", b"1", b'{"child-pid": "x"}', b"\xff\xfe", b"{", b'{"x": "\xff"}', b"[" * 5000]
)
def test_status_passes_over_what_is_not_bubblewraps(pipe: Pipe, line: bytes) -> None:
    pipe.write(b'{"child-pid": 5}\n' + line + b'\n{"exit-code": 1}\n')
    pipe.reader.read()
    assert (pipe.reader.init_pid, pipe.reader.exit_code) == (5, 1)


def test_status_gives_up_a_line_without_end(pipe: Pipe) -> None:
    for _ in range(2):
        pipe.write(b"x" * 40_000)
        pipe.reader.read()
    assert pipe.reader.ended


def test_a_closed_status_reads_nothing(pipe: Pipe) -> None:
    pipe.reader.close()
    pipe.reader.close()
    assert not pipe.reader.read()
