from __future__ import annotations

import os

import pytest

from coworkd.system import memfd
from coworkd.system.memfd import make_sealed


def test_it_is_read_from_its_start_and_written_by_nobody() -> None:
    fd = make_sealed("words", b"x" * 100_000)
    assert not os.get_inheritable(fd)
    assert os.read(fd, 200_000) == b"x" * 100_000
    anew = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    for each in (fd, anew):
        with pytest.raises(PermissionError):
            os.pwrite(each, b"y", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(each, 0)
        os.close(each)


def test_one_that_cannot_be_sealed_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(memfd, "_SEALS", 1 << 30)
    with pytest.raises(OSError):
        make_sealed("words", b"x")
    assert os.listdir("/proc/self/fd") == before
