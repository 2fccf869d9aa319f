"""Published events: order, doubles, the bound, and what was missed."""

from __future__ import annotations

import pytest

from coworkd.client.feed import Feed
from coworkd.model.errors import InvalidState


def event(seq: int) -> dict[str, object]:
    return {"seq": seq, "at": 1.5, "word": "x"}


def test_events_come_out_without_seq_and_at_among_their_params() -> None:
    feed = Feed(None)
    feed.subscribed(5, 0)
    feed.feed("session.created", event(5))
    taken = feed.take()
    assert taken is not None
    assert (taken.seq, taken.at, taken.name, taken.params) == (5, 1.5, "session.created", {"word": "x"})
    assert feed.take() is None


def test_an_event_had_already_is_dropped() -> None:
    feed = Feed(7)
    feed.subscribed(9, 0)
    for seq in (7, 8, 8):
        feed.feed("a", event(seq))
    assert feed.take() is not None
    assert feed.take() is None
    assert feed.last_seq == 8


def test_past_the_bound_it_parks_and_goes_on_after_the_last_one_it_has() -> None:
    feed = Feed(0, bound=2)
    for seq in (1, 2, 3, 4):
        feed.feed("a", event(seq))
    assert feed.parked
    assert feed.last_seq == 2
    feed.take()
    feed.take()
    feed.subscribed(5, 0)
    feed.feed("a", event(3))
    assert not feed.parked
    assert feed.last_seq == 3


def test_missed_adds_up() -> None:
    feed = Feed(1)
    feed.subscribed(10, 3)
    feed.subscribed(20, 4)
    assert feed.missed == 7


@pytest.mark.parametrize("params", [{"seq": 1}, {"seq": "1", "at": 0.0}, {"seq": 1, "at": "now"}])
def test_nonsense_is_refused(params: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        Feed(None).feed("a", params)


def test_a_closed_feed_gives_what_waits_and_then_tells() -> None:
    feed = Feed(7)
    feed.feed("a", event(8))
    feed.close()
    assert feed.take() is not None
    assert feed.waiting
    with pytest.raises(InvalidState, match="unsubscribed"):
        feed.take()
