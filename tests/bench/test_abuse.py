"""Pure parts of the measure of bad neighbours."""

from __future__ import annotations

from tests.bench.abuse import Abuse, compose_abuse_rows, judge_abuse, slowest_of_hundred

GOOD = Abuse(way="burns", rest_s=[[0.001, 0.001]], abused_s=[[0.002, 0.002]])
BAD = Abuse(way="floods", rest_s=[[0.001, 0.001], [0.001]], abused_s=[[0.02, 0.02], [0.02]])


def test_rows_tell_both_and_their_ratio() -> None:
    [row] = compose_abuse_rows([GOOD])
    assert row == ("burns", "1.00 ms", "2.00 ms", "2.00 (2.00 – 2.00)", "1.00 ms", "2.00 ms")


def test_ten_times_as_long_is_too_long() -> None:
    assert [verdict.met for verdict in judge_abuse([GOOD, BAD])] == [True, False]


def test_the_slowest_of_a_hundred() -> None:
    assert slowest_of_hundred([0.5]) == 0.5
    assert 98.9 < slowest_of_hundred([float(number) for number in range(1, 101)]) < 100.0
