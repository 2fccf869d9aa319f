from __future__ import annotations

import pytest

from coworkd.proxy.conversation import Over
from coworkd.proxy.events import NEED_DATA, Ended, Misused, Refusal, Route, Send


def test_one_that_ends_in_silence_says_that_alone() -> None:
    over = Over()
    assert [over.next_event(), over.next_event()] == [Ended(), NEED_DATA]
    assert (over.phase, over.kept_bytes) == ("ended", 0)


def test_one_that_was_misused_is_answered_before_it_ends() -> None:
    over = Over("it is wrong", b"no")
    told = [over.next_event() for _ in range(4)]
    assert told == [Misused(reason="it is wrong"), Send(data=b"no"), Ended(), NEED_DATA]


def test_decisions_are_given_once_and_in_turn() -> None:
    conversation = Over()
    with pytest.raises(RuntimeError, match="phase ended"):
        conversation.grant(Route(host="a.example"))
    with pytest.raises(RuntimeError, match="phase ended"):
        conversation.refuse(Refusal(kind="connect", reason=""))
    conversation.phase = "decision"
    conversation._decided()


def test_one_that_is_over_listens_to_nothing_more() -> None:
    over = Over()
    over.next_event()
    over.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    over.expire()
    assert (over.next_event(), over.rest, over.kept_bytes) == (NEED_DATA, b"", 0)


def test_only_exchanges_have_an_upstream() -> None:
    with pytest.raises(RuntimeError, match="only a granted HTTP exchange"):
        Over().receive_upstream(b"")
    with pytest.raises(RuntimeError, match="only a granted HTTP exchange"):
        Over().lose_upstream(Refusal(kind="connect", reason=""))
