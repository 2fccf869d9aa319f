from __future__ import annotations

import pytest

from coworkd.egressd.events import Events
from coworkd.egressd.state import State
from tests.unit.egressd.test_records import clock, state

__all__ = ["clock", "state"]


class Waiting:
    """One who is held."""

    def __init__(self, called: list[str], name: str) -> None:
        self._called = called
        self._name = name

    def room_came(self) -> None:
        self._called.append(self._name)


def test_those_that_were_held_go_on_in_their_order(state: State) -> None:
    called: list[str] = []
    state.held.extend(Waiting(called, name) for name in ("first", "second"))
    state.room_came()
    assert called == ["first", "second"]
    assert not state.held


def test_without_room_they_stay(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    state.held.append(Waiting(called, "first"))
    monkeypatch.setattr(Events, "has_room", property(lambda _: False))
    state.room_came()
    assert called == []
    assert len(state.held) == 1


def test_numbers_grow(state: State) -> None:
    assert [state.next_number(), state.next_number()] == [1, 2]
