from __future__ import annotations

import time

from coworkd.system.process_start import parse_start_ticks, read_start_s


def test_a_name_may_hold_anything() -> None:
    fields = " ".join(str(number) for number in range(3, 30))
    assert parse_start_ticks(f"7 (a) b (c) {fields}") == 22


def test_this_process_began_before_now() -> None:
    assert 0 < read_start_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)
