from __future__ import annotations

import pytest

from coworkd.launcher.shim_usage import NOTHING, ShimUsage, parse_ready
from tests.unit.launcher.launcher_room import USAGE


def test_what_a_shim_says_is_its_usage() -> None:
    assert parse_ready(b"ready 1 2 3 4 5 6 7") == ShimUsage(1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"ready",
        b"ready 1 2 3",
        b"ready 1 2 3 4 5 6 -7",
        b"ready 1 2 3 4 5 6 7\n",
        b"ready 1 2 3 4 5 6 " + b"7" * 99,
    ],
)
def test_anything_else_is_nothing(said: bytes) -> None:
    assert parse_ready(said) is None


def test_it_is_taken_off_but_the_peak() -> None:
    rusage = ShimUsage(1_000, 0, 1, 0, 0, 0, 10**9).take_off(USAGE)
    assert rusage.user_s == pytest.approx(max(0.0, USAGE.ru_utime - 0.001))
    assert (rusage.minor_faults, rusage.max_rss_bytes) == (USAGE.ru_minflt - 1, USAGE.ru_maxrss * 1024)


def test_nothing_gets_below_zero() -> None:
    rusage = ShimUsage(*[10**11] * 7).take_off(USAGE)
    assert (rusage.user_s, rusage.system_s, rusage.minor_faults, rusage.voluntary_switches) == (0.0, 0.0, 0, 0)


def test_without_a_shim_all_is_the_commands() -> None:
    assert NOTHING.take_off(USAGE).minor_faults == USAGE.ru_minflt
