"""Query: filters and bounds."""

from __future__ import annotations

import pytest

from coworkd.auditlog.chain import Head, append_record
from coworkd.auditlog.query import Filter, tail


def newest_first() -> list[bytes]:
    head = Head()
    made = []
    for number, (kind, session) in enumerate(
        [("session.create", "a"), ("process.start", "a"), ("process.start", "b"), ("process.exit", "b")]
    ):
        line, head = append_record(head, kind, {"session": session}, at=float(number), boot="b")
        made.append(line)
    return made[::-1]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [1, 2, 3, 4]),
        (Filter(session="a"), [1, 2]),
        (Filter(kinds=("process.start",)), [2, 3]),
        (Filter(kinds=("process.",)), [2, 3, 4]),
        (Filter(kinds=("process",)), []),
        (Filter(since=1.0, until=3.0), [2, 3]),
        (Filter(session="b", kinds=("process.exit",)), [4]),
        (Filter(process="p"), []),
    ],
)
def test_tail_keeps_what_fits(wanted: Filter, found: list[int]) -> None:
    records, truncated = tail(newest_first(), wanted, limit=10, limit_bytes=10_000)
    assert [record["seq"] for record in records] == found
    assert not truncated


def test_tail_gives_the_newest_up_to_the_limit() -> None:
    records, truncated = tail(newest_first(), Filter(), limit=2, limit_bytes=10_000)
    assert [record["seq"] for record in records] == [3, 4]
    assert not truncated


def test_tail_tells_when_bytes_run_out() -> None:
    made = newest_first()
    records, truncated = tail(made, Filter(), limit=10, limit_bytes=len(made[0]))
    assert [record["seq"] for record in records] == [4]
    assert truncated


def test_tail_shows_a_line_that_cannot_be_read() -> None:
    records, _ = tail([b"garbage\n", *newest_first()], Filter(), limit=10, limit_bytes=10_000)
    assert records[-1]["kind"] == "unreadable"
