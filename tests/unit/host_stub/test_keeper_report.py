"""The pipe from a keeper that starts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from host_stub.bundle_files import no_progress
from host_stub.keeper_report import PROGRESS_S, Reporter, read_report
from host_stub.words import Trouble


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)


def test_progress_and_then_the_start(pipe: tuple[int, int]) -> None:
    now = [0.0]
    reporter = Reporter(pipe[1], monotonic=lambda: now[0])
    for done in (1, 2, 3):  # only the first of them: the others come too soon
        reporter.progress("checking", done, 10)
    now[0] += PROGRESS_S
    reporter.progress("checking", 9, 10)
    reporter.progress("checking", 10, 10)
    reporter.progress("unpacking", 1, 2)
    reporter.started(42)
    reporter.progress("later", 1, 1)
    told: list[tuple[str, int, int]] = []
    assert read_report(pipe[0], lambda *words: told.append(words)) == 42
    assert told == [("checking", 1, 10), ("checking", 9, 10), ("checking", 10, 10), ("unpacking", 1, 2)]


def test_a_trouble_is_raised_where_it_is_read(pipe: tuple[int, int]) -> None:
    Reporter(pipe[1]).failed(Trouble("no_space", "full", remedy="room", details={"a": 1}))
    with pytest.raises(Trouble) as caught:
        read_report(pipe[0], no_progress)
    assert (caught.value.code, caught.value.remedy, caught.value.details) == ("no_space", "room", {"a": 1})


@pytest.mark.parametrize("written", [b"", b'{"progress": ["a", 1', b"\xff\n", b"[]\n"])
def test_a_keeper_that_died_says_nothing(pipe: tuple[int, int], written: bytes) -> None:
    os.write(pipe[1], written)
    os.close(pipe[1])
    assert read_report(pipe[0], no_progress) is None


def test_a_reader_that_does_not_read_holds_nobody_up(pipe: tuple[int, int]) -> None:
    reporter = Reporter(pipe[1], monotonic=iter(range(0, 10**9, 10)).__next__)
    for number in range(5000):
        reporter.progress("x" * 100, number, 5000)
    os.close(pipe[1])


def test_a_reader_that_is_gone_holds_nobody_up() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    reporter = Reporter(write_end)
    reporter.progress("x", 1, 2)
    reporter.started(1)


def test_without_a_pipe_nobody_is_told() -> None:
    reporter = Reporter(None)
    reporter.progress("x", 1, 2)
    reporter.failed(Trouble("a", "b", remedy="c"))
