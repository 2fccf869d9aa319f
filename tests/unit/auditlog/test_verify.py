"""Verify: every kind of damage is found and named by file and line."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.auditlog.chain import GENESIS, Head, append_record
from coworkd.auditlog.rotation import compose_name
from coworkd.auditlog.verify import Verdict, verify

Log = list[tuple[str, list[bytes]]]


def make_log(files: int = 3, each: int = 4, head: Head | None = None) -> tuple[Log, Head]:
    head = head or Head()
    log: Log = []
    for _ in range(files):
        name = compose_name(head.seq + 1)
        lines = []
        for _ in range(each):
            line, head = append_record(head, "session.pause", {"session": "s"}, at=1.0, boot="b")
            lines.append(line)
        log.append((name, lines))
    return log, head


def judge(log: Log) -> Verdict:
    return verify((name, [b"".join(lines)]) for name, lines in log)


def append(log: Log, head: Head, kind: str, fields: dict[str, Any]) -> Head:
    line, head = append_record(head, kind, fields, at=1.0, boot="b")
    log[-1][1].append(line)
    return head


def test_verify_proves_a_whole_log() -> None:
    log, head = make_log()
    assert judge(log) == Verdict(records=12, first=1, last=12, head=head.hash)


def test_verify_of_nothing_is_well() -> None:
    assert judge([]) == Verdict(records=0, first=0, last=0, head=GENESIS)


def test_verify_takes_chunks_of_any_size() -> None:
    log, head = make_log()
    whole = [(name, b"".join(lines)) for name, lines in log]
    verdict = verify((name, (data[at : at + 1] for at in range(len(data)))) for name, data in whole)
    assert (verdict.problem, verdict.head) == (None, head.hash)


def changed(log: Log) -> None:
    log[1][1][2] = log[1][1][2].replace(b'"session":"s"', b'"session":"t"')


def removed(log: Log) -> None:
    del log[1][1][2]


def inserted(log: Log) -> None:
    log[1][1].insert(2, log[0][1][0])


def swapped(log: Log) -> None:
    lines = log[1][1]
    lines[2], lines[3] = lines[3], lines[2]


def forged(log: Log) -> None:
    line, _ = append_record(Head(seq=6, hash="f" * 64), "session.pause", {"session": "evil"}, at=1.0, boot="b")
    log[1][1][2] = line


def cut(log: Log) -> None:
    log[1][1][2] = log[1][1][2][:20]
    del log[1][1][3]


@pytest.mark.parametrize("damage", [changed, removed, inserted, swapped, forged, cut])
def test_verify_names_file_and_line(damage: Any) -> None:
    log, _ = make_log()
    damage(log)
    problem = judge(log).problem
    assert problem is not None
    assert problem.startswith(f"{compose_name(5)} line 3: ")


def test_verify_finds_records_cut_from_the_end_of_a_file_that_is_not_the_newest() -> None:
    log, _ = make_log()
    del log[1][1][3]
    problem = judge(log).problem
    assert problem is not None
    assert problem.startswith(f"{compose_name(9)} line 1: record 8 is not here")


def test_verify_finds_a_missing_file() -> None:
    log, _ = make_log()
    del log[1]
    assert "record 5 is not here" in str(judge(log).problem)


def test_verify_finds_a_missing_beginning() -> None:
    log, _ = make_log()
    assert "no record says that they were dropped" in str(judge(log[1:]).problem)


def test_verify_finds_a_renamed_file() -> None:
    log, _ = make_log()
    log[1] = (compose_name(6), log[1][1])
    assert "which its name does not say" in str(judge(log).problem)


def test_verify_finds_an_empty_file_in_between() -> None:
    log, _ = make_log()
    log.insert(1, (compose_name(5), []))
    assert "is empty" in str(judge(log).problem)


def test_verify_accepts_an_empty_newest_file_that_continues() -> None:
    log, _ = make_log()
    assert judge([*log, (compose_name(13), [])]).problem is None
    assert "does not continue" in str(judge([*log, (compose_name(20), [])]).problem)


def test_verify_tells_a_torn_end() -> None:
    log, _ = make_log(files=1)
    log[0][1].append(b'{"seq":5')
    assert judge(log).problem == f"{compose_name(1)} line 5: the line is cut: it has no line end"


def test_verify_refuses_a_first_record_that_continues_something() -> None:
    line, _ = append_record(Head(seq=0, hash="a" * 64), "session.pause", {}, at=1.0, boot="b")
    assert "does not begin a chain" in str(judge([(compose_name(1), [line])]).problem)


def drop_record(log: Log, kept: int) -> dict[str, Any]:
    from coworkd.auditlog.chain import check_line

    return {
        "files": [name for name, _ in log[:kept]],
        "kept_seq": check_line(log[kept][1][0])[0].seq,
        "kept_hash": check_line(log[kept][1][0])[1],
    }


def test_verify_accepts_a_beginning_that_a_record_explains() -> None:
    log, head = make_log()
    append(log, head, "audit.dropped", drop_record(log, 1))
    verdict = judge(log[1:])
    assert (verdict.problem, verdict.first) == (None, 5)


def test_verify_accepts_a_drop_that_was_announced_but_not_finished() -> None:
    log, head = make_log()
    append(log, head, "audit.dropped", drop_record(log, 2))
    assert judge(log).problem is None
    assert judge(log[1:]).problem is None


def test_verify_refuses_more_dropped_than_the_record_says() -> None:
    log, head = make_log()
    append(log, head, "audit.dropped", drop_record(log, 1))
    assert "no record says" in str(judge(log[2:]).problem)


def test_verify_refuses_a_drop_record_with_another_hash() -> None:
    log, head = make_log()
    append(log, head, "audit.dropped", {**drop_record(log, 1), "kept_hash": "0" * 64})
    assert "is not the one this record names" in str(judge(log[1:]).problem)


def test_verify_stops_reading_a_line_without_end() -> None:
    read = []

    def endless() -> Any:
        while True:
            read.append(1)
            yield b"x" * 65536

    assert verify([(compose_name(1), endless())]).problem is not None
    assert len(read) < 20
