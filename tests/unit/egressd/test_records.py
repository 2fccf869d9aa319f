from __future__ import annotations

from collections.abc import Iterator

import pytest

from coworkd.egressd.dial import Means
from coworkd.egressd.events import Events
from coworkd.egressd.inspect import Inspecting
from coworkd.egressd.loop import Loop
from coworkd.egressd.own_addresses import OwnAddresses
from coworkd.egressd.pipes import PipePool
from coworkd.egressd.records import Record
from coworkd.egressd.refusals import Refusals
from coworkd.egressd.resolve import Resolver
from coworkd.egressd.state import State
from coworkd.egressd.tls_leg import ParentTrust
from coworkd.model.egress import EgressEvent, Verdict
from tests.unit.egressd.test_loop import Clock

VERDICT = Verdict(allowed=True, host="index.example", port=443, rule="*.example in t.json", reason="")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> Iterator[State]:
    loop, pool = Loop(clock), PipePool()
    means = Means(loop=loop, resolver=Resolver(loop), own=OwnAddresses(clock), host_uri="", parent_trust=ParentTrust())
    yield State(loop, pool, Events(), means, Inspecting(), lambda: 1234.5)
    pool.close()
    loop.close()


def record(state: State) -> Record:
    made = Record(state, "s", Refusals(state.events, lambda: state.loop.now), "connect")
    made.set_verdict(VERDICT)
    return made


def told(state: State) -> list[EgressEvent]:
    return list(state.events._events)


def test_an_open_one_is_closed_once_with_its_sums(state: State, clock: Clock) -> None:
    made = record(state)
    made.upstream = "direct"
    assert made.open() == 1
    clock.now += 2.5
    state.loop.turn(0)
    made.address = "198.51.100.1"
    made.close("idle", sent_bytes=5, received_bytes=7)
    made.close("again", sent_bytes=5)
    opened, closed = told(state)
    assert (opened.kind, opened.rule, opened.at, opened.address) == ("open", VERDICT.rule, 1234.5, "")
    assert (closed.kind, closed.reason, closed.took_s, closed.address) == ("close", "idle", 2.5, "198.51.100.1")
    assert (closed.sent_bytes, closed.received_bytes) == (5, 7)
    assert opened.connection == closed.connection
    assert (state.sent_bytes, state.received_bytes) == (5, 7)


def test_what_was_never_open_is_not_closed(state: State) -> None:
    record(state).close("nothing")
    assert told(state) == []


def test_numbers_are_each_ones_own(state: State) -> None:
    record(state).open()
    record(state).open()
    first, second = told(state)
    assert first.connection != second.connection


def test_a_refusal_after_resolution_stands_between(state: State) -> None:
    made = record(state)
    made.open()
    made.refuse("resolved to a loopback address")
    made.close("resolved to a loopback address")
    assert [event.kind for event in told(state)] == ["open", "refused", "close"]
    assert state.refused_total == 1


def test_a_request_is_told_with_its_path(state: State) -> None:
    made = record(state)
    made.open()
    made.request("GET", "/a", 200, "")
    event = told(state)[1]
    assert (event.kind, event.method, event.path, event.status) == ("request", "GET", "/a", 200)


def test_a_request_past_the_room_there_is_is_told_and_said_to_be_the_last(state: State) -> None:
    made = record(state)
    made.open()
    while state.events.has_room:
        assert made.request("GET", "/a", 200, "") is not state.events.has_room
    assert made.request("GET", "/a", 200, "")
