"""How many functions something calls, Python's and C's: what every command passes must not call one for each value it looks at."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


def count_calls(act: Callable[[], object]) -> int:
    """The calls of `act`, itself included."""
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(before)
    return calls
