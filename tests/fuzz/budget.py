"""How long fuzzing goes on, and how one round of it is played again.

COWORKD_FUZZ_SECONDS is for all of it together (60; `make fuzz`: 600), of which each test has its share. A round is made by its seed
alone: one that fails says the line that repeats it, COWORKD_FUZZ_SEED=… with the test's name.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

SECONDS = float(os.environ.get("COWORKD_FUZZ_SECONDS", "60"))
SEED = os.environ.get("COWORKD_FUZZ_SEED")


def play(share: float, round_of: Callable[[random.Random], None]) -> int:
    """Rounds until this test's share of the time is over, one at least; returns how many there were."""
    if SEED is not None:
        round_of(random.Random(int(SEED)))
        return 1
    until = time.monotonic() + SECONDS * share
    seeds = random.SystemRandom()
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        rounds += 1
        seed = seeds.randrange(1 << 48)
        try:
            round_of(random.Random(seed))
        except BaseException:
            print(f"repeat it: COWORKD_FUZZ_SEED={seed} .venv/bin/python -m pytest {_current_test()!r}")
            raise
    return rounds


def _current_test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
