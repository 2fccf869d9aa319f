"""The power goes while sessions are made, work and are deleted: whatever the disk holds at that moment, a coworkd comes up on it.

COWORKD_POWER_CUTS says how often (20; `make soak`: 200), COWORKD_POWER_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial
from pathlib import Path

import pytest

from tests.root.conftest import running_daemon
from tests.root.live import wait_until
from tests.root.power_cut import Load, assert_recovers, copy_disk

CUTS = int(os.environ.get("COWORKD_POWER_CUTS", "20"))
SEED = int(os.environ.get("COWORKD_POWER_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
BATCH = 10
"""How many copies are kept at a time."""


@pytest.mark.needs("loop", "bubblewrap")
@pytest.mark.parametrize("first", range(0, CUTS, BATCH))
def test_a_coworkd_comes_up_on_what_a_power_cut_leaves(tmp_path: Path, first: int) -> None:
    print(f"COWORKD_POWER_SEED={SEED}")
    chance = random.Random(SEED + first)
    disk = tmp_path / "disk"
    copies = [tmp_path / f"copy-{number}" for number in range(first, min(first + BATCH, CUTS))]
    with (
        running_daemon(tmp_path / "load", "--disk", f"{disk}:64M") as daemon,
        Load(daemon, chance.randrange(1 << 32)) as load,
    ):
        for number, copy in enumerate(copies):
            time.sleep(chance.uniform(0.0, 0.25))  # the moment is what is random here
            copy_disk(daemon, disk, copy)
            wait_until(partial(load.has_done, number + 1), "the load goes on between two cuts")
    assert load.error is None
    for copy in copies:
        assert_recovers(copy, tmp_path / f"on-{copy.name}")
