"""The terminal is given back as it was."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator

import pytest

from coworkd.cli.control_terminal import raw_terminal, terminal_size


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_raw_while_inside_and_as_before_afterwards_even_after_an_error(pty: tuple[int, int]) -> None:
    before = termios.tcgetattr(pty[1])

    def fail_inside() -> None:
        with raw_terminal(pty[1]) as raw:
            assert raw
            assert not termios.tcgetattr(pty[1])[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert termios.tcgetattr(pty[1]) == before


def test_what_is_no_terminal_is_left_alone() -> None:
    reading, writing = os.pipe()
    with raw_terminal(reading) as raw:
        assert raw is False
    os.close(reading)
    os.close(writing)


def test_the_first_terminal_with_a_size_counts(pty: tuple[int, int]) -> None:
    reading, writing = os.pipe()
    assert terminal_size(reading, pty[1]) == (24, 80)
    fcntl.ioctl(pty[1], termios.TIOCSWINSZ, struct.pack("4H", 50, 132, 0, 0))
    assert terminal_size(reading, pty[1]) == (50, 132)
    os.close(reading)
    os.close(writing)
