"""What is kept of a guest in files: one line a record, bounded, and a full disk that stops nobody."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.calls import LogLine
from host_stub.logs import BoundedLog, compose_note, compose_record, compose_text


def line(
    message: str = "started PID 812",
    component: str = "process:7",
    at: float = 1_772_293_554.0,
    fields: dict[str, Any] | None = None,
) -> LogLine:
    return LogLine(at=at, level="info", component=component, message=message, fields=fields or {})


def test_a_line_has_the_look_that_people_know() -> None:
    shown = compose_text(line(fields={"session": "demo"}), time.gmtime)
    assert shown == "2026/02/28 15:45:54 [process:7] started PID 812 session=demo"


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\x1b[2Jb", "a\u202eb", "a\x00b", "a\ud800b"])
def test_no_guest_forges_or_hides_a_line(hostile: str) -> None:
    shown = compose_text(line(hostile, component=hostile, fields={hostile: hostile}), time.gmtime)
    assert len(shown.splitlines()) == 1
    assert shown.encode().isascii()


def test_what_a_guest_sends_is_cut() -> None:
    fields = {f"name{number}": "v" * 100_000 for number in range(1000)}
    assert len(compose_text(line("m" * 100_000, component="c" * 100_000, fields=fields), time.gmtime)) < 100_000


def test_a_time_that_is_none_is_no_error() -> None:
    assert compose_text(line(at=1e300)).startswith("????/??/?? ")


def test_a_json_record_is_one_line_for_a_terminal_too() -> None:
    text = compose_record({"host": "a\u202eb\u2028c\n"})
    assert len(text.splitlines()) == 1
    assert json.loads(text) == {"host": "a\u202eb\u2028c\n"}


def test_a_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for text in ("one", "two"):
        log = BoundedLog(path)
        log.write([text])
        log.close()
    assert path.read_text() == "one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_file_makes_room_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = BoundedLog(path, limit_bytes=20, keep=2)
    log.write(f"{number:09}" for number in range(12))
    log.close()
    kept = [(tmp_path / name).read_text().split() for name in ("x.log.2", "x.log.1", "x.log")]
    assert kept == [["000000006", "000000007"], ["000000008", "000000009"], ["000000010", "000000011"]]
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.log", "x.log.1", "x.log.2"}


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.log").symlink_to(tmp_path / "elsewhere")
    log = BoundedLog(tmp_path / "x.log")
    log.write(["one"])
    assert log.lost == 1
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_full_disk_refused_is_counted_and_said_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = BoundedLog(tmp_path / "x.log")
    log.write(["one"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", _refuse)
        log.write(["two", "three"])
    assert log.lost == 2
    log.write(["four"])
    log.close()
    shown = (tmp_path / "x.log").read_text().splitlines()
    assert shown[0] == "one"
    assert shown[1].endswith("[cowork-vm] 2 lines could not be written here")
    assert shown[2] == "four"


def _refuse(fd: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_half_a_line_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = BoundedLog(tmp_path / "x.log")
    log.write(["one"])
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
        log.write(["two"])
    log.close()
    assert (tmp_path / "x.log").read_text() == "one\n"
    assert log.lost == 1


def test_a_note_of_ours_says_so() -> None:
    assert compose_note("7 lines were gone", 0.0).endswith("[cowork-vm] 7 lines were gone")
