from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.model.calls import Subscribe
from coworkd.model.errors import CoworkError, OutOfRange
from coworkd.model.ports import Frames
from coworkd.services.events import EVENT_BYTES, RING_BYTES, EventRing


class FakeLink:
    """A link that keeps its sources, and pulls when told."""

    name = "fake:1"

    def __init__(self) -> None:
        self.sources: list[Frames] = []
        self.woken = 0

    def notify(self, method: str, params: Mapping[str, Any], /) -> None:
        raise AssertionError("events are pulled, never queued")

    def attach(self, source: Frames, /) -> None:
        self.sources.append(source)

    def detach(self, source: Frames, /) -> None:
        self.sources.remove(source)
        source.detached()

    def wake(self, source: Frames, /) -> None:
        self.woken += 1

    def on_close(self, call: Callable[[], None], /) -> None:
        raise AssertionError("not needed")

    def finish(self, error: CoworkError, /) -> None:
        raise AssertionError("not needed")

    def pull(self, limit_bytes: int = 65_536) -> list[tuple[str, dict[str, Any]]]:
        frames = [frame for source in self.sources for frame in source.next_frame(limit_bytes) or []]
        return [(name, params) for _, name, [params] in map(msgpack.unpackb, frames)]


def make_ring(ring_events: int = 4) -> EventRing:
    return EventRing(clock=lambda: 5.0, ring_events=ring_events)


def test_events_are_numbered_from_one_and_sent_with_seq_and_time() -> None:
    ring, link = make_ring(), FakeLink()
    assert ring.subscribe(Subscribe(), link).next == 1
    assert [ring.publish("a", {"x": 1}).seq, ring.publish("b", {}).seq] == [1, 2]
    assert link.pull() == [("a", {"x": 1, "seq": 1, "at": 5.0}), ("b", {"seq": 2, "at": 5.0})]
    assert (link.pull(), link.woken) == ([], 2)


def test_subscribe_without_after_starts_with_what_comes_next() -> None:
    ring, link = make_ring(), FakeLink()
    ring.publish("old", {})
    answer = ring.subscribe(Subscribe(), link)
    ring.publish("new", {})
    assert (answer.next, answer.missed, [name for name, _ in link.pull()]) == (2, 0, ["new"])


def test_subscribe_after_replays_what_is_kept_and_says_what_is_not() -> None:
    ring, link = make_ring(), FakeLink()
    for number in range(10):
        ring.publish(f"e{number + 1}", {})
    answer = ring.subscribe(Subscribe(after=2), link)
    assert (answer.next, answer.missed) == (7, 4)
    assert [name for name, _ in link.pull()] == ["e7", "e8", "e9", "e10"]
    assert ring.subscribe(Subscribe(after=10), FakeLink()).missed == 0


@pytest.mark.parametrize("after", [3, -1])
def test_after_an_event_that_never_was_is_out_of_range(after: int) -> None:
    ring = make_ring()
    ring.publish("a", {})
    with pytest.raises(OutOfRange, match="since this boot"):
        ring.subscribe(Subscribe(after=after), FakeLink())


def test_a_slow_follower_is_told_what_it_missed_in_its_place() -> None:
    ring, link = make_ring(), FakeLink()
    ring.subscribe(Subscribe(), link)
    for number in range(6):
        ring.publish(f"e{number + 1}", {})
    assert [name for name, _ in link.pull()] == ["events.missed", "e3", "e4", "e5", "e6"]
    ring.publish("e7", {})
    assert [name for name, _ in link.pull()] == ["e7"]


def test_missed_events_are_counted() -> None:
    ring, link = make_ring(), FakeLink()
    ring.subscribe(Subscribe(), link)
    for _ in range(6):
        ring.publish("e", {})
    assert link.pull()[0] == ("events.missed", {"missed": 2, "next": 3})
    assert ring.missed_total == 2


def test_a_turn_gives_no_more_than_its_limit_but_at_least_one() -> None:
    ring, link = make_ring(), FakeLink()
    ring.subscribe(Subscribe(), link)
    for _ in range(3):
        ring.publish("e", {"x": "y" * 1000})
    assert [len(link.pull(limit)) for limit in (10, 2200, 99)] == [1, 2, 0]


def test_second_subscription_of_a_link_takes_the_place_of_the_first() -> None:
    ring, link = make_ring(), FakeLink()
    ring.publish("a", {})
    ring.subscribe(Subscribe(), link)
    ring.subscribe(Subscribe(after=0), link)
    assert (len(link.sources), [name for name, _ in link.pull()]) == (1, ["a"])


def test_unsubscribe_and_the_end_of_a_link_end_the_wakes() -> None:
    ring, first, second = make_ring(), FakeLink(), FakeLink()
    for link in (first, second):
        ring.subscribe(Subscribe(), link)
    ring.unsubscribe(first)
    ring.unsubscribe(first)
    second.sources[0].detached()
    ring.publish("a", {})
    assert (first.woken, second.woken, first.sources) == (0, 0, [])


def test_what_cannot_be_encoded_is_told_as_text() -> None:
    ring, link = make_ring(), FakeLink()
    ring.subscribe(Subscribe(), link)
    ring.publish("a", {"odd": {1, 2}, "text": "\udcff", "big": 2**70})
    assert link.pull()[0][1] == {"odd": [1, 2], "text": "\\udcff", "big": str(2**70), "seq": 1, "at": 5.0}


def test_a_large_event_is_cut_to_its_short_values() -> None:
    ring, link = make_ring(), FakeLink()
    ring.subscribe(Subscribe(), link)
    ring.publish("a", {"id": "p", "large": "x" * EVENT_BYTES})
    assert link.pull()[0][1] == {"id": "p", "cut": True, "seq": 1, "at": 5.0}


def test_the_ring_is_bounded_in_bytes() -> None:
    ring = EventRing(clock=lambda: 5.0)
    for _ in range(RING_BYTES // 60_000 + 10):
        ring.publish("a", {"x": "y" * 60_000})
    assert ring.next - ring.first <= RING_BYTES // 60_000
