"""What signals do while a command is followed."""

from __future__ import annotations

import os
import queue
import signal
import threading

import pytest

from coworkd.cli import control_signals
from coworkd.cli.control_signals import Signals
from coworkd.client.repeating import compose_refusal
from coworkd.model.errors import CoworkError, InvalidState, Unavailable


class Command:
    """`errors` are what its first calls fail with."""

    def __init__(self, *errors: CoworkError) -> None:
        self.asked: queue.SimpleQueue[tuple[object, ...]] = queue.SimpleQueue()
        self._errors = list(errors)

    def _note(self, *what: object) -> None:
        self.asked.put(what)
        if self._errors:
            raise self._errors.pop(0)

    def signal(self, signal: int | str, /) -> None:
        self._note("signal", signal)

    def kill(self, grace_s: float | None = None, /) -> None:
        self._note("kill", grace_s)

    def resize(self, rows: int, cols: int, /) -> None:
        self._note("resize", rows, cols)


def signals(given_up: list[bool] | None = None) -> Signals:
    noted = given_up if given_up is not None else []
    return Signals(size=lambda: (24, 80), give_up=lambda: noted.append(True))


def test_before_there_is_a_command_a_signal_ends_us() -> None:
    with pytest.raises(SystemExit) as caught, signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_a_signal_during_the_start_waits_for_the_command_and_a_second_does_not() -> None:
    command = Command()
    with signals() as held:
        held.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        held.follow(command)
        assert command.asked.get(timeout=5) == ("kill", None)


def test_an_interrupt_goes_to_the_command_and_a_second_ends_it() -> None:
    command = Command()
    with signals() as held:
        held.follow(command)
        os.kill(os.getpid(), signal.SIGINT)
        assert command.asked.get(timeout=5) == ("signal", "INT")
        os.kill(os.getpid(), signal.SIGINT)
        assert command.asked.get(timeout=5) == ("kill", 0.0)
    assert held.received == signal.SIGINT


def test_quit_goes_to_the_command() -> None:
    command = Command()
    with signals() as held:
        held.follow(command)
        os.kill(os.getpid(), signal.SIGQUIT)
        assert command.asked.get(timeout=5) == ("signal", "QUIT")
    assert held.received == signal.SIGQUIT


@pytest.mark.parametrize(
    ("number", "asked"), [(signal.SIGTERM, [("kill", None)]), (signal.SIGHUP, [("signal", "HUP"), ("kill", None)])]
)
def test_term_and_hangup_end_the_command_with_grace(number: int, asked: list[tuple[object, ...]]) -> None:
    command = Command()
    with signals() as held:
        held.follow(command)
        os.kill(os.getpid(), number)
        assert [command.asked.get(timeout=5) for _ in asked] == asked
    assert held.received == number


def test_a_resized_terminal_resizes_the_commands() -> None:
    command = Command()
    with signals() as held:
        held.follow(command)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert command.asked.get(timeout=5) == ("resize", 24, 80)
    assert held.received is None


def test_a_storm_of_resizes_is_one_at_a_time_and_the_last_size_stays() -> None:
    sizes = iter([(1, 1), (2, 2)])
    command = Command()
    held = Signals(size=lambda: next(sizes), give_up=lambda: None)
    for _ in range(1000):
        held.resize()
    assert held._noted.qsize() == 1
    held._command = command
    held.act_on(held._noted.get())
    held.resize()
    held.act_on(held._noted.get())
    assert [command.asked.get(timeout=5) for _ in range(2)] == [("resize", 1, 1), ("resize", 2, 2)]
    assert held._noted.empty()


@pytest.mark.parametrize(("rows", "other"), [(24, 23), (1, 2)])
def test_what_is_to_be_drawn_anew_has_another_size_first(
    rows: int, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_signals, "REDRAW_S", 0)
    command = Command()
    held = Signals(size=lambda: (rows, 80), give_up=lambda: None)
    held._command = command
    held.redraw()
    held.act_on(held._noted.get())
    assert [command.asked.get(timeout=5) for _ in range(2)] == [("resize", other, 80), ("resize", rows, 80)]
    assert command.asked.empty()


def test_a_resize_before_there_is_a_command_is_not_lost() -> None:
    command = Command()
    with signals() as held:
        held.defer()
        os.kill(os.getpid(), signal.SIGWINCH)
        os.kill(os.getpid(), signal.SIGTERM)  # is deferred all the same
        held.follow(command)
        assert command.asked.get(timeout=5) == ("resize", 24, 80)
        assert command.asked.get(timeout=5) == ("kill", None)


def test_while_the_link_is_away_a_signal_that_asks_for_the_end_has_ours() -> None:
    given_up: list[bool] = []
    command = Command()
    held = signals(given_up)
    held._command, held.away = command, True
    held.act_on(signal.SIGTERM)
    assert given_up == [True]
    assert held.received == signal.SIGTERM
    assert command.asked.empty()


def test_who_only_looks_on_leaves_the_command() -> None:
    left: list[bool] = []
    command = Command()
    held = signals()
    held._command, held._leave = command, lambda: left.append(True)
    held.act_on(signal.SIGINT)
    assert left == [True]
    assert command.asked.empty()


def test_a_guest_that_does_not_end_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_signals, "GIVE_UP_S", 0.01)
    given_up: list[bool] = []
    with signals(given_up) as held:
        held.follow(Command())
        os.kill(os.getpid(), signal.SIGTERM)
        held._watcher.join(60)
    assert given_up == [True]


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_guest_that_does_not_even_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    monkeypatch.setattr(control_signals, "GIVE_UP_S", 0.01)
    gone = threading.Event()

    class Silent(Command):
        def _note(self, *what: object) -> None:
            gone.wait(60)

    with Signals(size=lambda: (24, 80), give_up=gone.set) as held:
        held.follow(Silent())
        for number in numbers:
            os.kill(os.getpid(), number)
        held._watcher.join(60)
    assert gone.is_set()


def test_a_command_that_ended_a_moment_ago_is_no_error() -> None:
    held = signals()
    held._command = Command(InvalidState("it has ended"))
    held.act_on(signal.SIGTERM)
    assert held.received == signal.SIGTERM


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "INT"), (signal.SIGHUP, "HUP")])
def test_a_signal_that_may_have_gone_with_a_coworkd_is_passed_on_again(number: int, name: str) -> None:
    held = signals()
    held._command = command = Command(compose_refusal("process.signal"), compose_refusal("process.signal"))
    held.act_on(number)
    assert [command.asked.get_nowait() for _ in range(3)] == [("signal", name)] * 3
    assert held.received == number


def test_a_signal_whose_link_is_lost_for_good_is_not_passed_on_again() -> None:
    held = signals()
    held._command = command = Command(Unavailable("the link broke"))
    held.act_on(signal.SIGINT)
    assert command.asked.get_nowait() == ("signal", "INT")
    assert command.asked.empty()


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_once_the_end_is_asked_for_no_write_waits_for_who_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_signals, "STUCK_S", 0.01)
    reading, writing = os.pipe()
    with signals() as held:
        held.follow(Command())
        with held.writing():
            os.write(writing, bytes(65536))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(TimeoutError), held.writing():
            os.write(writing, b"more than there is room for")
        with pytest.raises(TimeoutError), held.writing():
            os.write(writing, b"and nothing waits again")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    os.close(reading)
    os.close(writing)


def test_an_alarm_interrupts_nothing_but_writes() -> None:
    with signals() as held:
        held.follow(Command())
        signal.raise_signal(signal.SIGALRM)
        with held.writing():
            signal.raise_signal(signal.SIGALRM)
        signal.raise_signal(signal.SIGALRM)
        with held.writing():
            pass
