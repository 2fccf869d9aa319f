from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coworkd.system import pressure

TEXT = b"some avg10=12.34 avg60=5.00 avg300=1.00 total=99\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n"


def test_averages_are_of_the_last_ten_seconds() -> None:
    assert pressure.parse_averages(TEXT) == {"some": 12.34, "full": 0.5}


def test_what_is_none_is_passed_over() -> None:
    assert pressure.parse_averages(b"") == {}
    assert pressure.parse_averages(b"some avg10=x\nfull\n\n\xff avg10=-1\n") == {}


def test_a_file_is_read_from_its_beginning_each_time(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_bytes(TEXT)
    fd = os.open(tmp_path / "cpu", os.O_RDONLY)
    try:
        assert pressure.read_averages(fd) == pressure.read_averages(fd) == {"some": 12.34, "full": 0.5}
    finally:
        os.close(fd)


def test_a_trigger_is_written_with_its_window(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT)
    try:
        pressure.arm(fd, 200_000)
    finally:
        os.close(fd)
    assert (tmp_path / "memory").read_bytes() == b"some 200000 2000000\0"


def test_a_file_that_has_a_trigger_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((errno.EBUSY, errno.EOPNOTSUPP))

    def write(fd: int, data: bytes) -> int:
        raise OSError(next(answers), "no")

    monkeypatch.setattr(os, "write", write)
    pressure.arm(0, 200_000)
    with pytest.raises(OSError, match="no"):
        pressure.arm(0, 200_000)
