"""The ring of events."""

from __future__ import annotations

import trio
import trio.testing

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
