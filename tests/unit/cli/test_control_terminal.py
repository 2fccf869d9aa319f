"""The terminal is given back as it was."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from collections.abc import Iterator

import pytest

from coworkd.cli.control_terminal import Terminal, terminal_size, terminal_variables


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_raw_while_inside_and_as_before_afterwards_even_after_an_error(pty: tuple[int, int]) -> None:
    before = termios.tcgetattr(pty[1])

    def fail_inside() -> None:
        with Terminal(pty[1]) as terminal:
            assert terminal.raw
            inside = termios.tcgetattr(pty[1])
            assert not inside[0] & (termios.ICRNL | termios.IXON)
            assert not inside[1] & termios.OPOST
            assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert termios.tcgetattr(pty[1]) == before


def test_every_byte_passes_a_raw_terminal_both_ways(pty: tuple[int, int]) -> None:
    everything = bytes(range(256))
    with Terminal(pty[1]):
        os.write(pty[0], everything)
        assert os.read(pty[1], 1000) == everything
        os.write(pty[1], everything)
        assert os.read(pty[0], 1000) == everything


def test_what_is_no_terminal_or_not_wanted_is_left_alone(pty: tuple[int, int]) -> None:
    reading, writing = os.pipe()
    before = signal.getsignal(signal.SIGTSTP)
    with Terminal(reading) as terminal:
        assert not terminal.raw
        assert signal.getsignal(signal.SIGTSTP) == before
        terminal.drop_typed()
    with Terminal(pty[1], wanted=False) as terminal:
        assert not terminal.raw
        assert termios.tcgetattr(pty[1])[3] & termios.ECHO
    os.close(reading)
    os.close(writing)


def test_a_terminal_that_is_gone_is_no_error(pty: tuple[int, int]) -> None:
    master, slave = os.openpty()
    with Terminal(slave) as terminal:
        os.close(master)
        terminal.drop_typed()
    os.close(slave)


def test_a_stop_gives_the_terminal_back_and_going_on_takes_it_again(
    pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def echoes() -> bool:
        return bool(termios.tcgetattr(pty[1])[3] & termios.ECHO)

    def stop(thread: int, number: int) -> None:
        said.append(f"{signal.Signals(number).name} {'cooked' if echoes() else 'raw'}")

    monkeypatch.setattr(signal, "pthread_kill", stop)
    with Terminal(
        pty[1], stopped=lambda: said.append("stopped"), resumed=lambda: said.append(f"resumed {echoes()}")
    ) as terminal:
        os.kill(os.getpid(), signal.SIGTSTP)
        assert said == ["stopped", "SIGTSTP cooked", "resumed False"]
        os.kill(os.getpid(), signal.SIGCONT)
        assert said[3:] == ["resumed False"]
        assert terminal.raw
    assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL


def test_a_job_in_the_background_leaves_the_terminal_to_its_shell(
    pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[bool] = []
    with Terminal(pty[1], resumed=lambda: resumed.append(True)) as terminal:
        raw = termios.tcgetattr(pty[1])
        os.write(pty[0], b"typed\n")
        monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)
        os.kill(os.getpid(), signal.SIGCONT)
        terminal.drop_typed()
        assert resumed == []
    assert termios.tcgetattr(pty[1]) == raw
    assert os.read(pty[1], 100) == b"typed\n"


def test_what_was_typed_for_a_command_that_is_gone_is_dropped(pty: tuple[int, int]) -> None:
    with Terminal(pty[1]) as terminal:
        os.write(pty[0], b"rm -rf .\n")
        terminal.drop_typed()
        os.write(pty[0], b"x")
        assert os.read(pty[1], 100) == b"x"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TERM": "xterm-256color"}, {"TERM": "xterm-256color"}),
        (
            {"TERM": "linux", "COLORTERM": "truecolor", "NO_COLOR": "1"},
            {"TERM": "linux", "COLORTERM": "truecolor", "NO_COLOR": "1"},
        ),
        ({"TERM": "xterm-kitty"}, {"TERM": "xterm-256color"}),
        ({"TERM": "alacritty"}, {"TERM": "xterm-256color"}),
        ({"TERM": "st-256color"}, {"TERM": "xterm-256color"}),
        ({"TERM": "stv52"}, {"TERM": "stv52"}),
        ({"TERM": "tmux-256color"}, {"TERM": "tmux-256color"}),
        ({"TERM": "../../etc/passwd"}, {}),
        ({"TERM": "a;b"}, {}),
        ({"TERM": "x" * 65}, {}),
        ({"TERM": "", "COLORTERM": "\x1b[2J", "PATH": "/bin"}, {}),
        ({}, {}),
    ],
)
def test_a_command_is_told_of_the_terminal_in_words_that_are_some(
    environment: dict[str, str], told: dict[str, str]
) -> None:
    assert terminal_variables(environment) == told


def test_the_first_terminal_with_a_size_counts(pty: tuple[int, int]) -> None:
    reading, writing = os.pipe()
    assert terminal_size(reading, pty[1]) == (24, 80)
    fcntl.ioctl(pty[1], termios.TIOCSWINSZ, struct.pack("4H", 50, 132, 0, 0))
    assert terminal_size(reading, pty[1]) == (50, 132)
    os.close(reading)
    os.close(writing)
