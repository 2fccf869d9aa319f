"""The chain: canonical bytes, hashes, and the end of a file."""

from __future__ import annotations

import hashlib

import pytest

from coworkd.auditlog.chain import (
    GENESIS,
    LINE_LIMIT_BYTES,
    Broken,
    Head,
    append_record,
    check_line,
    parse_record,
    read_tail,
)


def lines(count: int, head: Head | None = None) -> tuple[list[bytes], Head]:
    head = head or Head()
    made = []
    for number in range(count):
        line, head = append_record(head, "session.pause", {"session": f"s{number}"}, at=1.5, boot="b")
        made.append(line)
    return made, head


def test_record_bytes_are_as_the_docstring_defines_them() -> None:
    line, head = append_record(Head(), "session.pause", {"session": "demo"}, at=1.5, boot="b")
    body = b'{"seq":1,"at":1.5,"boot":"b","kind":"session.pause","session":"demo","prev":"' + GENESIS.encode() + b'"}'
    digest = hashlib.sha256(body).hexdigest()
    assert line == body[:-1] + b',"hash":"' + digest.encode() + b'"}\n'
    assert head == Head(seq=1, hash=digest)


def test_record_names_the_hash_before_it() -> None:
    (first, second), head = lines(2)
    assert check_line(second)[0].prev == check_line(first)[1]
    assert head.seq == 2


def test_check_accepts_what_was_appended() -> None:
    (line,), head = lines(1)
    record, digest = check_line(line)
    assert (record.seq, record.kind, digest) == (1, "session.pause", head.hash)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line.replace(b"s0", b"s9"), "was changed"),
        (lambda line: line[:-1], "does not end with a hash"),
        (lambda line: line.replace(b'"hash"', b'"hush"'), "does not end with a hash"),
        (lambda line: b"\n", "does not end with a hash"),
        (lambda line: b"x" * LINE_LIMIT_BYTES + line, "longer than"),
    ],
)
def test_check_names_what_is_broken(change, says) -> None:  # type: ignore[no-untyped-def]
    (line,), _ = lines(1)
    with pytest.raises(Broken, match=says):
        check_line(change(line))


def test_check_refuses_a_sealed_line_that_is_no_record() -> None:
    body = b'{"seq":"one"}'
    digest = hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(Broken, match="is not a record"):
        check_line(body[:-1] + b',"hash":"' + digest + b'"}\n')


@pytest.mark.parametrize("line", [b"{", b'{"x":"\xff"}', b'{"x":' + b"[" * 5000])
def test_parse_says_of_rubbish_that_it_is_no_record(line: bytes) -> None:
    with pytest.raises(Broken, match="is not a record"):
        parse_record(line)


def test_parse_gives_every_key() -> None:
    (line,), head = lines(1)
    record = parse_record(line)
    assert list(record) == ["seq", "at", "boot", "kind", "session", "prev", "hash"]
    assert record["hash"] == head.hash


def test_tail_of_nothing_is_nothing() -> None:
    end = read_tail(b"")
    assert (end.keep_bytes, end.torn_bytes, end.head, end.broken) == (0, 0, None, None)


def test_tail_finds_a_torn_line() -> None:
    made, head = lines(3)
    end = read_tail(b"".join(made) + b'{"seq":4,"at"')
    assert (end.torn_bytes, end.head, end.broken) == (13, head, None)
    assert end.keep_bytes == sum(map(len, made))


def test_tail_of_zeros_is_torn() -> None:
    made, head = lines(1)
    end = read_tail(made[0] + bytes(100))
    assert (end.torn_bytes, end.head) == (100, head)


def test_tail_keeps_broken_lines_and_finds_the_head_before() -> None:
    made, head = lines(2)
    end = read_tail(b"".join(made) + b"not a record\n" + b"nor this\n")
    assert (end.torn_bytes, end.head) == (0, head)
    assert end.broken is not None
