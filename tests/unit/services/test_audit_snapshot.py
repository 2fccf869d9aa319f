"""Reading a log of one moment, forwards, backwards and from its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.auditlog.chain import Head, append_record
from coworkd.services.audit_snapshot import (
    BLOCK_BYTES,
    TAIL_WINDOW_BYTES,
    Snapshot,
    find_end,
    read_backwards,
    read_forwards,
)


def opened(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_forwards_gives_exactly_the_asked_bytes(tmp_path: Path, size: int) -> None:
    fd = opened(tmp_path / "f", b"x" * (size + 10))
    assert b"".join(read_forwards(fd, size)) == b"x" * size
    os.close(fd)


def test_forwards_ends_where_the_file_does(tmp_path: Path) -> None:
    fd = opened(tmp_path / "f", b"abc")
    assert b"".join(read_forwards(fd, 100)) == b"abc"
    os.close(fd)


@pytest.mark.parametrize("length", [1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_backwards_gives_whole_lines_across_blocks(tmp_path: Path, length: int) -> None:
    lines = [bytes([65 + number]) * length + b"\n" for number in range(7)]
    data = b"".join(lines)
    fd = opened(tmp_path / "f", data + b"not durable yet")
    assert list(read_backwards(fd, len(data))) == lines[::-1]
    os.close(fd)


def test_backwards_of_nothing_is_nothing(tmp_path: Path) -> None:
    fd = opened(tmp_path / "f", b"")
    assert list(read_backwards(fd, 0)) == []
    os.close(fd)


def test_end_of_a_big_file_is_found_in_its_window(tmp_path: Path) -> None:
    line, head = append_record(Head(), "session.pause", {}, at=1.0, boot="b")
    data = b"x\n" * TAIL_WINDOW_BYTES + line
    fd = opened(tmp_path / "f", data + b"torn")
    end = find_end(fd, len(data) + 4)
    assert (end.head, end.keep_bytes, end.torn_bytes, end.broken) == (head, len(data), 4, None)
    os.close(fd)


def test_end_behind_much_damage_is_still_found(tmp_path: Path) -> None:
    line, head = append_record(Head(), "session.pause", {}, at=1.0, boot="b")
    data = line + b"x" * TAIL_WINDOW_BYTES + b"\n"
    fd = opened(tmp_path / "f", data)
    end = find_end(fd, len(data))
    assert (end.head, end.keep_bytes, end.torn_bytes) == (head, len(data), 0)
    assert end.broken is not None
    os.close(fd)


def test_snapshot_reads_newest_first_over_files_and_closes(tmp_path: Path) -> None:
    fds = [opened(tmp_path / "a", b"1\n2\n"), opened(tmp_path / "b", b"3\n4\n")]
    snapshot = Snapshot(head=Head(), files=(("a", fds[0], 4), ("b", fds[1], 2)))
    assert list(snapshot.lines_backwards()) == [b"3\n", b"2\n", b"1\n"]
    assert [(name, b"".join(chunks)) for name, chunks in snapshot.chunks()] == [("a", b"1\n2\n"), ("b", b"3\n")]
    snapshot.close()
    with pytest.raises(OSError):
        os.fstat(fds[0])
