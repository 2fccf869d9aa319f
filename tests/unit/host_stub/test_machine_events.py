"""The ring of events."""

from __future__ import annotations

import trio
import trio.testing

from coworkd.wire.connection import Connection, Response
from coworkd.wire.convert import compose_answer
from host_stub.keeper import MAX_EVENTS
from host_stub.keeper_words import EventsAnswer
from host_stub.machine_events import EventRing
from host_stub.words import MachineState


def test_events_are_numbered_and_read_from_where_one_was() -> None:
    async def main() -> None:
        ring = EventRing(wall=lambda: 5.0)
        ring.add("progress", "one")
        ring.add("state", "two", state=MachineState.READY, details={"a": 1})
        events, missed = ring.after(1)
        assert ([event.seq for event in events], missed, events[0].at) == ([2], 0, 5.0)
        assert ring.after(0, limit=1)[0][0].message == "one"
        assert ring.after(2) == ((), 0)

    trio.run(main)


def test_a_slow_reader_is_told_what_it_missed() -> None:
    async def main() -> None:
        ring = EventRing(limit=3)
        for number in range(10):
            ring.add("log", f"{number}" * 9999)
        events, missed = ring.after(2)
        assert ([event.seq for event in events], missed) == ([8, 9, 10], 5)
        assert max(len(event.message) for event in events) == 4096

    trio.run(main)


def test_what_a_guest_makes_too_large_is_left_out() -> None:
    async def main() -> None:
        ring = EventRing()
        assert set(ring.add("guest", "x", details={"a": ["b" * 4000] * 10}).details) == {"left_out_bytes"}
        assert ring.add("guest", "x", details={"serial": ["b" * 300] * 20}).details == {"serial": ["b" * 300] * 20}

    trio.run(main)


def test_an_answer_with_as_many_events_as_there_may_be_can_be_sent() -> None:
    guest, host = Connection("guest"), Connection("host")
    number, asked = host.send_request("events", {})
    guest.receive_data(asked)
    guest.next_event()

    async def main() -> bytes:
        ring = EventRing()
        for _ in range(MAX_EVENTS):
            # "\U0001f600" takes four bytes; so many small numbers take few, and each is one of the values a message may have
            text = ["\U0001f600" * 4000]
            numbers = [[0] * 256 for _ in range(60)]
            ring.add("guest", "\U0001f600" * 9999, details={"x": text})
            ring.add("guest", "\U0001f600" * 9999, details={"x": numbers})
        events, missed = ring.after(MAX_EVENTS, limit=MAX_EVENTS)
        assert len(events) == MAX_EVENTS
        return guest.send_response(number, compose_answer(EventsAnswer(events=events, missed=missed)))

    host.receive_data(trio.run(main))
    answer = host.next_event()
    assert isinstance(answer, Response)
    assert answer.id == number


def test_the_last_change_of_state_is_known_though_a_guest_floods() -> None:
    async def main() -> None:
        ring = EventRing(limit=3)
        assert ring.last_state is None
        ring.add("state", "up", state=MachineState.READY)
        for _ in range(10):
            ring.add("guest", "look at me")
        assert ring.last_state is not None
        assert ring.last_state.message == "up"

    trio.run(main)


def test_a_number_of_another_ring_begins_anew() -> None:
    async def main() -> None:
        ring = EventRing()
        ring.add("log", "one")
        assert ring.after(77)[0][0].seq == 1

    trio.run(main)


def test_waiting_ends_with_the_next_event() -> None:
    async def main() -> None:
        ring = EventRing()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ring.wait_after, 1)
            await trio.testing.wait_all_tasks_blocked()
            ring.add("log", "one")
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            ring.add("log", "two")

    trio.run(main)
