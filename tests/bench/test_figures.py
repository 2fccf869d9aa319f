"""The benchmark's statistics."""

from __future__ import annotations

import pytest

from tests.bench.figures import Spread, paired_ratio, spread


def test_spread_tells_median_and_quartiles() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(median=3.0, lower=2.0, upper=4.0, count=5)


def test_spread_of_one_figure_is_that_figure() -> None:
    assert spread([7.0]) == Spread(median=7.0, lower=7.0, upper=7.0, count=1)


def test_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no figures"):
        spread([])


def test_paired_ratio_compares_neighbours_not_medians() -> None:
    # The machine was ten times slower in the second half; each pair still says 2.
    theirs = [1.0, 1.0, 10.0, 10.0]
    ratio = paired_ratio([2 * figure for figure in theirs], theirs)
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


def test_paired_ratio_interval_holds_the_median_and_widens_with_the_spread() -> None:
    theirs = [1.0] * 40
    near = paired_ratio([1.0 + number % 5 / 100 for number in range(40)], theirs)
    wide = paired_ratio([1.0 + number % 5 for number in range(40)], theirs)
    assert near.low <= near.median <= near.high
    assert wide.low <= wide.median <= wide.high
    assert wide.high - wide.low > near.high - near.low


def test_paired_ratio_is_the_same_every_time() -> None:
    ours, theirs = [1.0, 2.0, 4.0, 3.0], [1.0, 1.5, 2.0, 2.5]
    assert paired_ratio(ours, theirs) == paired_ratio(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_paired_ratio_of_no_pairs_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_ratio(ours, theirs)
