"""What waits of one stream."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.client.stream_inbox import StreamInbox
from coworkd.model.errors import InvalidState, Unavailable


def data(offset: int, data: bytes, **more: Any) -> dict[str, Any]:
    return {"stream": "s1", "offset": offset, "data": data, **more}


def test_bytes_are_taken_in_order_and_the_end_stays() -> None:
    inbox = StreamInbox("s1")
    assert inbox.take() is None
    assert not inbox.waiting
    inbox.feed(data(0, b"ab"))
    inbox.feed(data(2, b"c", eof=True))
    assert inbox.waiting
    assert [inbox.take() for _ in range(4)] == [b"ab", b"c", b"", b""]


def test_a_limit_splits_and_nothing_is_lost() -> None:
    inbox = StreamInbox("s1")
    inbox.feed(data(0, b"abcde"))
    assert [inbox.take(2) for _ in range(4)] == [b"ab", b"cd", b"e", None]
    assert inbox.taken == 5


@pytest.mark.parametrize(
    "wrong",
    [
        data(1, b"x"),
        data(-1, b"x"),
        {"stream": "s1", "offset": 0, "data": "text"},
        data(0, b"12345"),
        {"stream": "s1", "offset": 0},
        {"stream": "s1", "data": b""},
    ],
)
def test_what_no_guest_may_send_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        StreamInbox("s1", window=4).feed(wrong)


def test_nothing_may_come_behind_the_end() -> None:
    inbox = StreamInbox("s1")
    inbox.feed(data(0, b"", eof=True))
    with pytest.raises(ValueError, match="s1"):
        inbox.feed(data(0, b"x"))


def test_half_a_window_is_acknowledged_at_a_time() -> None:
    inbox = StreamInbox("s1", window=4)
    inbox.feed(data(0, b"abcd"))
    with pytest.raises(ValueError, match="window"):
        inbox.feed(data(4, b"e"))
    inbox.take(1)
    assert inbox.due() is None
    inbox.take(1)
    assert inbox.due() == 2
    assert inbox.due() is None
    inbox.feed(data(4, b"ef"))


def test_a_window_of_one_byte_is_acknowledged_byte_by_byte() -> None:
    inbox = StreamInbox("s1", window=1)
    assert inbox.due() is None
    inbox.feed(data(0, b"a"))
    inbox.take()
    assert inbox.due() == 1


def test_behind_the_end_nothing_is_due() -> None:
    inbox = StreamInbox("s1", window=4)
    inbox.feed(data(0, b"abcd", eof=True))
    inbox.take()
    assert inbox.due() is None


def test_a_loss_is_raised_behind_what_came_before() -> None:
    inbox = StreamInbox("s1")
    inbox.feed(data(0, b"ab"))
    inbox.feed(data(2, b"", eof=True, error={"code": "UNAVAILABLE", "message": "reset", "details": {}}))
    assert inbox.take() == b"ab"
    for _ in range(2):
        with pytest.raises(Unavailable, match="reset"):
            inbox.take()


def test_a_closed_one_says_so() -> None:
    inbox = StreamInbox("s1")
    inbox.feed(data(0, b"ab"))
    inbox.close()
    assert inbox.waiting
    with pytest.raises(InvalidState, match="closed here"):
        inbox.take()
