from __future__ import annotations

import time

import pytest

from coworkd.system import clocks


def test_the_three_clocks_are_the_kernels() -> None:
    read = clocks.read_clocks()
    assert 0 <= time.monotonic() - read.monotonic < 60
    assert read.boot >= read.monotonic - 0.001


def test_setting_is_setting_the_real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[int, float]] = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, seconds: done.append((clock, seconds)))
    clocks.set_real(5.0)
    assert done == [(time.CLOCK_REALTIME, 5.0)]
