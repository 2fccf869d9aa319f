"""A device with a guest plugged into it, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.host_stub.vsock.driver import Bench


@pytest.fixture(params=[False, True], ids=["flags", "event_idx"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """With both ways of suppressing notifications."""
    made = Bench(tmp_path, event_idx=request.param)
    yield made
    made.close()
