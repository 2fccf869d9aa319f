"""Every script is played whole, in threes, and byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.proxy.playbook import Playbook


@pytest.fixture(params=[0, 3, 1], ids=["whole", "in-threes", "byte-by-byte"])
def playbook(request: pytest.FixtureRequest) -> Callable[[], Playbook]:
    pieces: int = request.param
    return lambda: Playbook(pieces)
