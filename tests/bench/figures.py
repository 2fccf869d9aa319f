"""Medians, ratios and how sure of them one can be. Pure.

A ratio is the median of the ratios of neighbours in an A B A B run, so that what slows the machine for a while slows both; its
interval holds 95 % of the medians of resampled pairs (the percentile bootstrap, with a fixed seed: the same figures give
the same interval).
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from msgspec import Struct

RESAMPLES = 1000
CONFIDENCE = 0.95
_SEED = 20_261_122


class Spread(Struct, frozen=True, kw_only=True):
    """A median with its quartiles, in the unit of the figures, and how many there were."""

    median: float
    lower: float
    upper: float
    count: int


class Ratio(Struct, frozen=True, kw_only=True):
    """A median of paired ratios with the bounds of its interval."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """The spread of one or more figures; raises ValueError for none."""
    if not figures:
        raise ValueError("no figures")
    if len(figures) == 1:
        return Spread(median=figures[0], lower=figures[0], upper=figures[0], count=1)
    lower, median, upper = statistics.quantiles(figures, n=4, method="inclusive")
    return Spread(median=median, lower=lower, upper=upper, count=len(figures))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """ours / theirs, pair by pair; raises ValueError where they are not pairs, or there are none."""
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} figures are no pairs")
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    chance = random.Random(_SEED)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    outside = int(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Ratio(median=statistics.median(ratios), low=medians[outside], high=medians[-1 - outside])
