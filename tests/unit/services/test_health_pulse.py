"""The pulse of the loop, on a clock that stands still."""

from __future__ import annotations

import time

import trio
import trio.testing

from coworkd.model.calls import Stats
from coworkd.services.health_pulse import BEAT_S, BEATS_PER_COUNT, BEATS_REMEMBERED, Pulse
from tests.unit.services.process_house import in_trio, jump

STATS = Stats(
    uptime_s=0,
    links=0,
    sessions=0,
    processes={},
    started_total=0,
    start_errors_total=0,
    spool_bytes=0,
    rss_bytes={},
    audit_records=0,
)


class Room:
    """A pulse that beats, and what it is told."""

    def __init__(self) -> None:
        self.pulse = Pulse(trio.current_time)
        self.activity: object = None
        self.stats: Stats | None = None
        self.counted = 0

    def count(self) -> Stats | None:
        self.counted += 1
        return self.stats

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.pulse.serve, lambda: self.activity, self.count)
        await trio.testing.wait_all_tasks_blocked()

    async def beat(self, times: int = 1) -> None:
        for _ in range(times):
            jump(BEAT_S)
            await trio.testing.wait_all_tasks_blocked()


@in_trio
async def test_a_loop_that_turns_has_turned_just_now() -> None:
    room = Room()
    async with trio.open_nursery() as nursery:
        await room.start(nursery)
        await room.beat(3)
        assert (room.pulse.turned_ago_s, room.pulse.lag_s) == (0.0, 0.0)
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_loop_that_hangs_does_not_turn_and_is_late_afterwards_for_a_while() -> None:
    room = Room()
    async with trio.open_nursery() as nursery:
        await room.start(nursery)
        jump(BEAT_S + 30.0)  # one step that never gives way: nobody else runs meanwhile
        assert room.pulse.turned_ago_s == BEAT_S + 30.0
        await trio.testing.wait_all_tasks_blocked()
        assert (room.pulse.turned_ago_s, room.pulse.lag_s) == (0.0, 30.0)
        await room.beat(BEATS_REMEMBERED - 1)
        assert room.pulse.lag_s == 30.0
        await room.beat()
        assert room.pulse.lag_s == 0.0
        nursery.cancel_scope.cancel()


@in_trio
async def test_idle_is_who_neither_asks_nor_puts_anything_out() -> None:
    room = Room()
    async with trio.open_nursery() as nursery:
        await room.start(nursery)
        await room.beat(5)
        assert room.pulse.idle_for_s == 5.0
        room.activity = (1, 0)
        await room.beat()
        assert room.pulse.idle_for_s == 0.0
        await room.beat(2)
        assert room.pulse.idle_for_s == 2.0
        nursery.cancel_scope.cancel()


@in_trio
async def test_what_is_counted_is_as_old_as_it_is() -> None:
    room = Room()
    async with trio.open_nursery() as nursery:
        await room.start(nursery)
        assert (room.pulse.counted, room.pulse.counted_ago_s) == (None, None)
        room.stats = STATS
        await room.beat()
        assert (room.pulse.counted_ago_s, room.counted) == (0.0, 2)
        await room.beat(BEATS_PER_COUNT - 1)
        counted = room.pulse.counted
        assert counted is not None
        assert counted.stats is STATS
        assert room.counted == 3
        jump(100.0)
        assert room.pulse.counted_ago_s == 101.0 - 1.0
        nursery.cancel_scope.cancel()


def test_uptime_is_told_by_the_clock_that_is_never_set() -> None:
    pulse = Pulse()
    assert 0.0 <= pulse.uptime_s < time.monotonic()
