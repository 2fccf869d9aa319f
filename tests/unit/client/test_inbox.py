"""Offsets, gaps, bounds and the end of one process' output."""

from __future__ import annotations

import pytest

from coworkd.client.inbox import Inbox, read_output
from coworkd.model.errors import InvalidState, OutOfRange
from coworkd.model.process import Exit, ExitRecord


def record(output: str = "complete", **counts: int) -> ExitRecord:
    return ExitRecord(
        process="p1",
        session="s",
        exit=Exit(code=0, signal=None, reason="exited"),
        output=output,  # type: ignore[arg-type]
        bytes=counts,
        rusage=None,
        started_at=1.0,
        ended_at=2.0,
    )


def taken(inbox: Inbox) -> list[tuple[str, int, bytes, bool]]:
    pieces = []
    while (piece := inbox.take()) is not None:
        pieces.append(tuple(piece))
    return pieces  # type: ignore[return-value]


def test_frames_come_out_in_order_with_their_offsets() -> None:
    inbox = Inbox("p1", {"stdout": 0, "stderr": 0})
    inbox.feed_output("stdout", 0, b"ab", False)
    inbox.feed_output("stderr", 0, b"x", True)
    inbox.feed_output("stdout", 2, b"c", False)
    assert taken(inbox) == [("stdout", 0, b"ab", False), ("stderr", 0, b"x", True), ("stdout", 2, b"c", False)]
    assert inbox.wanted == {"stdout": 3}


def test_bytes_had_already_are_cut_off() -> None:
    inbox = Inbox("p1", {"stdout": 4})
    inbox.feed_output("stdout", 0, b"0123", False)
    inbox.feed_output("stdout", 2, b"2345", False)
    assert taken(inbox) == [("stdout", 4, b"45", False)]
    assert inbox.wanted == {"stdout": 6}


def test_a_gap_raises_behind_what_came_before_it_and_is_passed_once() -> None:
    inbox = Inbox("p1", {"stdout": 0})
    inbox.feed_output("stdout", 0, b"ab", False)
    inbox.feed_output("stdout", 5, b"f", False)
    assert inbox.take() == ("stdout", 0, b"ab", False)
    with pytest.raises(OutOfRange) as caught:
        inbox.take()
    assert caught.value.details == {"process": "p1", "stream": "stdout", "expected": 2, "offset": 5}
    assert inbox.take() == ("stdout", 5, b"f", False)


def test_a_stream_that_is_not_attached_is_ignored() -> None:
    inbox = Inbox("p1", {"stdout": 0})
    assert inbox.feed_output("tty", 0, b"x", False) is False
    assert not inbox.waiting


def test_past_the_bound_it_parks_once_and_still_takes_what_was_on_its_way() -> None:
    inbox = Inbox("p1", {"stdout": 0}, bound_bytes=4)
    assert inbox.feed_output("stdout", 0, b"abc", False) is False
    assert inbox.feed_output("stdout", 3, b"de", False) is True
    assert inbox.feed_output("stdout", 5, b"f", False) is False
    assert inbox.parked
    assert inbox.wanted == {"stdout": 6}
    assert [piece[2] for piece in taken(inbox)] == [b"abc", b"de", b"f"]
    assert inbox.queued_bytes == 0


def test_past_twice_the_bound_it_drops_until_it_is_resumed() -> None:
    inbox = Inbox("p1", {"stdout": 0}, bound_bytes=2)
    assert inbox.feed_output("stdout", 0, b"abc", False) is True
    assert inbox.feed_output("stdout", 3, b"de", False) is False
    assert inbox.feed_output("stdout", 5, b"f", False) is False
    assert inbox.wanted == {"stdout": 3}
    assert [piece[2] for piece in taken(inbox)] == [b"abc"]
    inbox.resume()
    inbox.feed_output("stdout", 3, b"d", True)
    assert taken(inbox) == [("stdout", 3, b"d", True)]


def test_one_frame_larger_than_every_bound_is_taken_when_nothing_waits() -> None:
    inbox = Inbox("p1", {"stdout": 0}, bound_bytes=2)
    assert inbox.feed_output("stdout", 0, b"abcdefgh", False) is True
    assert inbox.queued_bytes == 8


def test_complete_output_is_finished_only_at_its_last_byte() -> None:
    inbox = Inbox("p1", {"stdout": 0, "stderr": 0})
    inbox.feed_exit(record(stdout=2, stderr=0))
    assert not inbox.finished
    inbox.feed_output("stdout", 0, b"ab", False)
    assert not inbox.finished
    taken(inbox)
    assert inbox.finished


@pytest.mark.parametrize("output", ["still_open", "truncated"])
def test_output_that_is_not_complete_is_finished_at_the_exit(output: str) -> None:
    inbox = Inbox("p1", {"stdout": 0})
    inbox.feed_exit(record(output, stdout=10))
    assert inbox.finished


def test_it_is_not_finished_while_parked() -> None:
    inbox = Inbox("p1", {"stdout": 0}, bound_bytes=1)
    inbox.feed_output("stdout", 0, b"a", False)
    inbox.feed_output("stdout", 1, b"b", True)
    inbox.feed_exit(record("truncated", stdout=2))
    taken(inbox)
    assert not inbox.finished


def test_read_output_refuses_data_that_is_text() -> None:
    with pytest.raises(TypeError):
        read_output({"process": "p", "stream": "stdout", "offset": 0, "data": "text"})


def test_read_output_takes_a_bare_end_of_file() -> None:
    params = {"process": "p", "stream": "stdout", "offset": 3, "eof": True}
    assert read_output(params) == ("p", "stdout", 3, b"", True)


def test_a_dropped_inbox_gives_what_waits_and_then_tells() -> None:
    inbox = Inbox("p1", {"stdout": 0})
    inbox.feed_output("stdout", 0, b"ab", False)
    inbox.drop()
    assert inbox.take() is not None
    assert inbox.waiting
    with pytest.raises(InvalidState, match="detached"):
        inbox.take()


def test_a_dropped_inbox_that_has_all_is_finished() -> None:
    inbox = Inbox("p1", {"stdout": 0})
    inbox.feed_exit(record())
    inbox.drop()
    assert inbox.take() is None
    assert inbox.finished
