"""When a lost link is tried again, with a clock of the test's own."""

from __future__ import annotations

import pytest
from msgspec import structs

from coworkd.client.renewal import PAUSE_FIRST_S, PAUSE_LAST_S, SILENCE_S, Renewal, Silence, refuse_starting
from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import Unauthenticated, Unavailable

GONE = Unavailable("nobody listens")


def test_the_first_attempt_is_made_at_once_and_pauses_grow_to_a_bound() -> None:
    renewal = Renewal(60)
    renewal.lost(0.0)
    pauses = [renewal.pause_s() for _ in range(12)]
    assert pauses[:3] == [0.0, PAUSE_FIRST_S, 2 * PAUSE_FIRST_S]
    assert max(pauses) == pauses[-1] == PAUSE_LAST_S


def test_attempts_end_after_the_limit_counted_from_the_first_loss() -> None:
    renewal = Renewal(10)
    renewal.lost(100.0)
    renewal.lost(105.0)
    assert not renewal.over(109.9, GONE)
    assert renewal.over(110.0, GONE)


def test_what_no_attempt_can_mend_ends_them_at_once() -> None:
    renewal = Renewal(10)
    renewal.lost(0.0)
    assert renewal.over(0.0, Unauthenticated("the token is wrong"))


def test_a_link_that_is_there_again_starts_anew() -> None:
    renewal = Renewal(10)
    renewal.lost(0.0)
    renewal.pause_s()
    renewal.renewed()
    renewal.lost(50.0)
    assert renewal.pause_s() == 0.0
    assert not renewal.over(59.0, GONE)


def test_a_silent_link_is_asked_once_and_then_given_up() -> None:
    silence = Silence()
    silence.looked(0.0)
    assert not silence.ask(SILENCE_S - 1)
    assert silence.ask(SILENCE_S)
    assert not silence.ask(SILENCE_S + 1)
    assert not silence.dead(2 * SILENCE_S - 1)
    assert silence.dead(2 * SILENCE_S)


def test_a_word_in_between_begins_the_silence_anew() -> None:
    silence = Silence()
    silence.looked(0.0)
    assert silence.ask(SILENCE_S)
    silence.heard()
    assert not silence.dead(3 * SILENCE_S)
    silence.looked(3 * SILENCE_S)
    assert not silence.ask(3 * SILENCE_S)


def test_a_handle_nobody_read_for_hours_is_not_silence() -> None:
    silence = Silence()
    silence.heard()
    silence.looked(8 * 3600.0)
    assert not silence.ask(8 * 3600.0)


def test_a_guest_that_comes_up_is_not_there_yet() -> None:
    hello = HelloAnswer(
        protocol=1, version="1", boot_id="b", features=(), stages=(), degraded={"network": "no way out"}
    )
    refuse_starting(hello)
    with pytest.raises(Unavailable, match="sessions"):
        refuse_starting(structs.replace(hello, degraded={"starting": "sessions"}))
