"""`cli.control_asking`: questions at a terminal, as they come and go."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coworkd.cli.control_asking import GUARD_S, Asker, DivertedKeys, TypedKeys
from coworkd.client.sync import Client
from tests.unit.cli.test_control_approve import APPROVAL
from tests.unit.client.conftest import FakeGuest

REQUESTED = {**APPROVAL, "paths": ["x"], "count": 1}


class _Keys:
    """Implements `control_asking.Keys`."""

    def __init__(self) -> None:
        self.typed = ""
        self.taken = 0

    def begin(self) -> None:
        self.taken += 1

    def end(self) -> None:
        self.taken -= 1

    def read(self) -> str | None:
        typed, self.typed = self.typed, ""
        return typed


class _Terminal:
    """An asker in a thread, with a person of a few lines: `on` maps a beginning of what is said to what is done then."""

    def __init__(self, guest: FakeGuest) -> None:
        self.guest = guest
        self.keys = _Keys()
        self.said: list[str] = []
        self.on: dict[str, Callable[[], None]] = {}
        self.now = 0.0
        self._seq = 0
        self.client = Client(guest.host)
        self.client.greet("test")
        guest.answers["events.subscribe"] = lambda _: {"next": 1, "missed": 0}
        guest.answers["approval.list"] = lambda _: {"approvals": []}
        guest.answers["approval.answer"] = lambda _: {"count": 1}
        self.asker = Asker(
            self.client,
            self.keys,
            wanted=lambda question: question.session == "work",
            say=self.say,
            monotonic=lambda: self.now,
        )

    def say(self, line: str) -> None:
        self.said.append(line)
        for beginning, act in self.on.items():
            if line.strip().startswith(beginning):
                act()

    def type(self, keys: str) -> Callable[[], None]:
        def act() -> None:
            self.now += GUARD_S
            self.keys.typed = keys

        return act

    def run(self) -> None:
        thread = threading.Thread(target=self.asker.run)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        assert self.keys.taken == 0

    def notify(self, name: str, **params: Any) -> None:
        self._seq += 1
        self.guest.notify(name, seq=self._seq, at=0.0, **params)


@pytest.fixture
def terminal() -> Any:
    guest = FakeGuest()
    guest.begin()
    made = _Terminal(guest)
    yield made
    made.client.close()
    guest.stop()


@pytest.mark.parametrize(("key", "answer"), [("y", "once"), ("s", "session"), ("n", "deny")])
def test_a_key_answers_what_was_shown(terminal: _Terminal, key: str, answer: str) -> None:
    terminal.guest.after["approval.list"] = lambda _: terminal.notify("approval.requested", **REQUESTED)
    terminal.on = {"[y]": terminal.type(key), "allowed": terminal.asker.stop, "refused": terminal.asker.stop}
    terminal.run()
    assert terminal.guest.called("approval.answer") == [{"approval": "a1", "answer": answer, "revision": 4}]


def test_what_was_open_already_is_asked_too(terminal: _Terminal) -> None:
    terminal.guest.answers["approval.list"] = lambda _: {"approvals": [REQUESTED]}
    terminal.on = {"[y]": terminal.type("y"), "allowed": terminal.asker.stop}
    terminal.run()
    assert len(terminal.guest.called("approval.answer")) == 1


def test_what_was_typed_for_something_else_answers_nothing(terminal: _Terminal) -> None:
    """A key that is pressed at the moment a question comes was not meant for it."""
    terminal.guest.answers["approval.list"] = lambda _: {"approvals": [REQUESTED]}

    def press_at_once() -> None:
        terminal.keys.typed = "y"
        terminal.notify("approval.closed", approval="a1", session="work", answer="timeout", count=1)

    terminal.on = {"[y]": press_at_once, "closed": terminal.asker.stop}
    terminal.run()
    assert terminal.guest.called("approval.answer") == []
    assert terminal.said[-1] == "  closed: nobody answered in time, and it is refused"


def test_a_list_that_grows_is_shown_anew_and_answered_as_shown(terminal: _Terminal) -> None:
    terminal.guest.answers["approval.list"] = lambda _: {"approvals": [REQUESTED]}
    acts = iter((lambda: terminal.notify("approval.requested", **{**REQUESTED, "revision": 5}), terminal.type("y")))
    terminal.on = {"[y]": lambda: next(acts)(), "allowed": terminal.asker.stop}
    terminal.run()
    assert [each["revision"] for each in terminal.guest.called("approval.answer")] == [5]


def test_the_questions_of_others_are_not_asked(terminal: _Terminal) -> None:
    def ask_both(_: dict[str, Any]) -> None:
        terminal.notify("approval.requested", **{**REQUESTED, "session": "other", "approval": "a0"})
        terminal.notify("approval.requested", **REQUESTED)

    terminal.guest.after["approval.list"] = ask_both
    terminal.on = {"[y]": terminal.type("n"), "refused": terminal.asker.stop}
    terminal.run()
    assert [each["approval"] for each in terminal.guest.called("approval.answer")] == ["a1"]


def test_typed_keys_are_read_without_waiting_until_the_keyboard_ends() -> None:
    near, far = os.pipe()
    keys = TypedKeys(near)
    assert keys.read() == ""
    os.write(far, b"y\xff\n")
    assert keys.read() == "y\ufffd\n"
    os.close(far)
    assert keys.read() is None
    os.close(near)


def test_diverted_keys_are_given_back() -> None:
    class _Pump:
        take: Callable[[bytes], None] | None = None

        def divert(self, take: Callable[[bytes], None] | None) -> None:
            self.take = take

    pump = _Pump()
    keys = DivertedKeys(pump)
    keys.begin()
    assert pump.take is not None
    pump.take(b"y")
    pump.take(b"n")
    assert (keys.read(), keys.read()) == ("yn", "")
    keys.end()
    assert pump.take is None
