from __future__ import annotations

import pytest

from coworkd.egressd.events import Events
from coworkd.egressd.refusals import Refusals
from coworkd.model.egress import EgressEvent
from tests.unit.egressd.test_loop import Clock


def refused(host: str = "elsewhere.example", *, reason: str = "not allowed") -> EgressEvent:
    return EgressEvent(
        seq=0, kind="refused", session="s", connection=1, at=0.0, protocol="connect", host=host, port=443, reason=reason
    )


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(events: Events, clock: Clock) -> Refusals:
    return Refusals(events, clock)


def counts(events: Events) -> list[tuple[str, int]]:
    return [(event.host, event.count) for event in events._events]


def test_the_first_is_told_at_once(refusals: Refusals, events: Events) -> None:
    refusals.tell(refused())
    assert counts(events) == [("elsewhere.example", 1)]


def test_repeats_within_a_second_are_told_as_one(refusals: Refusals, events: Events, clock: Clock) -> None:
    for _ in range(5):
        refusals.tell(refused())
    clock.now += 0.5
    refusals.sweep()
    assert len(events) == 1
    clock.now += 0.6
    refusals.sweep()
    assert counts(events) == [("elsewhere.example", 1), ("elsewhere.example", 4)]
    refusals.tell(refused())
    assert counts(events)[-1] == ("elsewhere.example", 1)


def test_other_kinds_are_told_for_themselves(refusals: Refusals, events: Events) -> None:
    refusals.tell(refused())
    refusals.tell(refused(reason="another"))
    refusals.tell(refused("other.example"))
    assert len(events) == 3


def test_a_flood_of_kinds_is_bounded_and_counted(refusals: Refusals, events: Events, clock: Clock) -> None:
    for number in range(1000):
        refusals.tell(refused(f"h{number}.example"))
    assert len(events) == 256 + 1
    clock.now += 1
    refusals.sweep()
    assert sum(count for _, count in counts(events)) == 1000
    assert counts(events)[-1] == ("", 1000 - 256 - 1)


def test_without_room_they_are_counted_and_told_later(
    refusals: Refusals, events: Events, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Events, "has_room", property(lambda _: False))
        refusals.tell(refused())
        refusals.tell(refused())
        clock.now += 2
        refusals.sweep()
        assert len(events) == 0
    refusals.sweep()
    assert counts(events) == [("elsewhere.example", 2)]


def test_the_end_tells_what_is_counted(refusals: Refusals, events: Events) -> None:
    refusals.tell(refused())
    refusals.tell(refused())
    refusals.flush()
    assert counts(events) == [("elsewhere.example", 1), ("elsewhere.example", 1)]
