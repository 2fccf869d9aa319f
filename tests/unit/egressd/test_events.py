from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from coworkd.egressd.events import EVENT_LIMIT, Events
from coworkd.egressd.link import SupervisorLink
from coworkd.model.egress import EgressEvent, Told


class Supervisor:
    """The other end of a link."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.link = SupervisorLink(ours)

    def heard(self) -> list[int]:
        seqs: list[int] = []
        while True:
            try:
                message = self.socket.recv(1 << 20)
            except BlockingIOError:
                return seqs
            seqs += [event.seq for event in msgspec.msgpack.decode(message, type=Told).events]

    def close(self) -> None:
        self.link.close()
        self.socket.close()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    opened = Supervisor()
    yield opened
    opened.close()


def add(events: Events) -> int:
    seq = events.next_seq
    return events.add(EgressEvent(seq=seq, kind="open", session="s", connection=seq, at=0.0, protocol="connect"))


def test_events_are_told_once_and_in_order(supervisor: Supervisor) -> None:
    events = Events()
    add(events)
    add(events)
    assert events.untold
    events.tell(supervisor.link)
    assert supervisor.heard() == [1, 2]
    add(events)
    events.tell(supervisor.link)
    events.tell(supervisor.link)
    assert supervisor.heard() == [3]
    assert not events.untold


def test_a_new_supervisor_is_told_what_is_not_recorded(supervisor: Supervisor) -> None:
    events = Events()
    for _ in range(5):
        add(events)
    events.tell(supervisor.link)
    events.recorded(3)
    supervisor.heard()
    add(events)
    events.begin_again()
    events.tell(supervisor.link)
    assert supervisor.heard() == [4, 5, 6]


def test_a_supervisor_that_reads_slowly_misses_nothing(supervisor: Supervisor) -> None:
    events = Events()
    for _ in range(EVENT_LIMIT):
        add(events)
    heard: list[int] = []
    for _ in range(EVENT_LIMIT):
        events.tell(supervisor.link)
        heard += supervisor.heard()
        if not events.untold:
            break
    assert heard == list(range(1, EVENT_LIMIT + 1))


def test_who_waits_is_called_once_its_event_is_durable() -> None:
    events = Events()
    called: list[int] = []
    events.wait_recorded(add(events), called.append)
    events.wait_recorded(add(events), called.append)
    events.recorded(0)
    assert called == []
    events.recorded(1)
    assert called == [1]
    events.recorded(2)
    events.recorded(2)
    assert called == [1, 2]
    assert len(events) == 0


def test_a_number_that_was_never_told_frees_nobody() -> None:
    events = Events()
    events.wait_recorded(add(events), lambda _: pytest.fail("it is not recorded"))
    events.recorded(2)
    assert len(events) == 1


def test_room_ends_at_the_limit_and_comes_back() -> None:
    back: list[str] = []
    events = Events(lambda: back.append("room"))
    for _ in range(EVENT_LIMIT - 1):
        add(events)
    assert events.has_room
    add(events)
    assert not events.has_room
    add(events)  # the end of an open one
    events.recorded(1)
    assert back == []
    events.recorded(2)
    assert back == ["room"]
    assert events.has_room
    events.recorded(3)
    assert back == ["room"]
