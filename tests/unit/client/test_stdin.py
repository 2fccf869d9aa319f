"""How stdin is offered."""

from __future__ import annotations

import pytest

from coworkd.client.inbox import Inbox
from coworkd.client.stdin import CHUNK_BYTES, RETRY_FIRST_S, RETRY_LAST_S, check_unread, chunk_at, next_pause_s
from coworkd.model.errors import LimitExceeded


def test_small_data_is_offered_as_it_is() -> None:
    data = bytes(CHUNK_BYTES)
    assert chunk_at(data, 0) is data


def test_chunks_cover_all_of_large_data() -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 100)
    chunks, position = [], 0
    while position < len(data):
        chunks.append(chunk_at(data, position))
        position += len(chunks[-1])
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) == CHUNK_BYTES


def test_pauses_grow_to_their_bound() -> None:
    pause_s, pauses = RETRY_FIRST_S, []
    for _ in range(10):
        pause_s = next_pause_s(pause_s)
        pauses.append(pause_s)
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_LAST_S


def test_much_unread_output_is_told() -> None:
    inbox = Inbox("p1", {"stdout": 0})
    check_unread(inbox, 5)
    inbox.feed_output("stdout", 0, bytes(5 * 1024 * 1024), False)
    with pytest.raises(LimitExceeded) as caught:
        check_unread(inbox, 5)
    assert caught.value.details == {"stage": "unread_output", "position": 5}


def test_a_process_that_is_not_attached_has_no_unread_output() -> None:
    check_unread(None, 0)
