"""The serial console's log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host_stub import serial_log
from host_stub.serial_log import KEPT_BYTES, LIMIT_BYTES, TAIL_BYTES, SerialLog, lines_of


@pytest.fixture
def log(tmp_path: Path) -> SerialLog:
    return SerialLog(tmp_path / "serial.log")


def append(log: SerialLog, data: bytes) -> None:
    with log.path.open("ab") as file:
        file.write(data)


def test_nothing_is_said_before_there_is_a_file(log: SerialLog) -> None:
    log.mark()
    assert log.tail(5) == []
    assert not log.bound()


def test_the_last_lines_of_this_life(log: SerialLog) -> None:
    append(log, b"of a life before\n")
    log.mark()
    assert log.tail(5) == []
    append(log, b"one\r\n\r\ntwo\r\nthree")
    assert log.tail(2) == ["two", "three"]
    assert log.tail(9) == ["one", "two", "three"]


def test_lines_cannot_drive_a_terminal() -> None:
    text = "\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x07bell\x1bc\n" + "x" * 999
    assert lines_of(text) == ["red \\x07bell", "x" * 300 + "…"]


def test_a_flood_is_bounded_and_its_end_is_kept(log: SerialLog) -> None:
    """The back end goes on appending to the same open file."""
    fd = os.open(log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, b"\0" * LIMIT_BYTES)
    assert not log.bound()
    os.write(fd, b"the end\n")
    log.mark()
    assert log.bound()
    assert (log.path.with_name("serial.log.1").read_bytes()[-8:], log.path.stat().st_size) == (b"the end\n", 0)
    assert log.path.with_name("serial.log.1").stat().st_size == KEPT_BYTES
    os.write(fd, b"after\n")
    os.close(fd)
    assert log.tail(3) == ["after"]


def test_a_full_disk_keeps_the_bound(log: SerialLog, monkeypatch: pytest.MonkeyPatch) -> None:
    append(log, b"x" * (LIMIT_BYTES + 1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serial_log, "write_whole", full)
    assert log.bound()
    assert log.path.stat().st_size == 0


def test_a_long_line_is_read_from_its_end_only(log: SerialLog) -> None:
    append(log, b"a" * (4 * TAIL_BYTES) + b"\nlast\n")
    assert log.tail(1) == ["last"]
