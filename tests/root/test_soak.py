"""Twenty seconds of the soak, which is half an hour by itself: `make soak` (tests/soak)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.soak import soak

MINUTES = float(os.environ.get("COWORKD_SOAK_MINUTES", "0.2"))


@pytest.mark.needs("bubblewrap", "netns", "mountns", "curl")
def test_a_mixed_load_with_faults_leaves_nothing_and_loses_nothing(tmp_path: Path) -> None:
    statement = soak(tmp_path, minutes=MINUTES)
    print("\n".join(statement.lines()))
    assert statement.problems() == []
    assert statement.outcomes["as expected"] > 10
    assert sum(statement.faults.values()) > 0
