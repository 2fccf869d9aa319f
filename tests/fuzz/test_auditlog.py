"""Fuzz: no damage to a log stays unseen, and every torn end is repaired."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.auditlog import admit, verify
from coworkd.auditlog.chain import Head, append_record, read_tail
from coworkd.auditlog.fields import LIST_LIMIT_BYTES
from coworkd.auditlog.rotation import compose_name


def build(sizes: list[int]) -> tuple[list[tuple[str, bytes]], Head]:
    head = Head()
    log = []
    for size in sizes:
        name = compose_name(head.seq + 1)
        lines = []
        for number in range(size):
            fields = admit("process.start", {"session": f"s{number}", "argv": [b"/bin/echo", b"\xff" * number]})
            line, head = append_record(head, "process.start", fields, at=number / 3, boot="boot")
            lines.append(line)
        log.append((name, b"".join(lines)))
    return log, head


def problem(log: list[tuple[str, bytes]]) -> str | None:
    return verify((name, [data]) for name, data in log).problem


LOG, HEAD = build([3, 1, 4])


@settings(max_examples=300)
@given(file=st.integers(0, 2), at=st.integers(0, 10_000), value=st.integers(1, 255))
def test_any_changed_byte_is_found(file: int, at: int, value: int) -> None:
    log = list(LOG)
    name, data = log[file]
    changed = bytearray(data)
    changed[at % len(data)] ^= value
    log[file] = (name, bytes(changed))
    assert problem(log) is not None


@given(file=st.integers(0, 2), line=st.integers(0, 10))
def test_any_removed_line_is_found_unless_it_is_the_newest(file: int, line: int) -> None:
    log = list(LOG)
    name, data = log[file]
    lines = data.splitlines(keepends=True)
    at = line % len(lines)
    del lines[at]
    log[file] = (name, b"".join(lines))
    newest = file == len(log) - 1 and at == len(lines)
    verdict = verify((name, [data]) for name, data in log)
    assert verdict.head != HEAD.hash if newest else verdict.problem is not None


@given(st.data())
def test_any_two_lines_swapped_are_found(data: st.DataObject) -> None:
    lines = [line for _, content in LOG for line in content.splitlines(keepends=True)]
    one, two = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True))
    lines[one], lines[two] = lines[two], lines[one]
    counts = [content.count(b"\n") for _, content in LOG]
    log = []
    for (name, _), count in zip(LOG, counts, strict=True):
        log.append((name, b"".join(lines[:count])))
        lines = lines[count:]
    assert problem(log) is not None


@given(length=st.integers(0, 10_000))
def test_any_cut_end_recovers_to_a_log_that_verifies(length: int) -> None:
    name, data = LOG[-1]
    torn = data[: length % (len(data) + 1)]
    end = read_tail(torn)
    assert end.keep_bytes + end.torn_bytes == len(torn)
    assert end.broken is None
    verdict = verify((name, [content]) for name, content in [*LOG[:-1], (name, torn[: end.keep_bytes])])
    assert verdict.problem is None
    if end.head is not None:
        assert verdict.head == end.head.hash


@given(st.binary(max_size=300))
def test_any_bytes_have_an_end(data: bytes) -> None:
    end = read_tail(data)
    assert end.keep_bytes + end.torn_bytes == len(data)
    assert b"\n" not in data[end.keep_bytes :]
    assert end.head is None


@given(st.lists(st.binary(max_size=64), max_size=4), st.integers(0, 400))
def test_any_chunks_give_a_verdict(chunks: list[bytes], at: int) -> None:
    name, data = LOG[0]
    verdict = verify([(name, [data[:at], *chunks, data[at:]])])
    assert (verdict.problem is None) == (b"".join(chunks) == b"")


@given(st.lists(st.one_of(st.binary(max_size=20_000), st.text(max_size=5_000)), max_size=20))
def test_any_argv_makes_one_bounded_line(argv: list[bytes | str]) -> None:
    line, head = append_record(Head(), "process.start", admit("process.start", {"argv": argv}), at=0.0, boot="b")
    assert line.count(b"\n") == 1
    assert len(line) < 6 * LIST_LIMIT_BYTES + 1024
    assert read_tail(line).head == head
