"""Jumps of a wall clock, seen from its distance to the monotonic one."""

from __future__ import annotations

import pytest

from host_stub.clock import JumpWatch


@pytest.mark.parametrize(
    ("wall_s", "monotonic_s", "jump"),
    [
        (2.0, 2.0, None),
        (2.001, 2.0, None),  # slewed
        (3602.0, 2.0, 3600.0),  # slept
        (-58.0, 2.0, -60.0),  # set back
    ],
)
def test_look_tells_what_the_wall_clock_gained(wall_s: float, monotonic_s: float, jump: float | None) -> None:
    wall, monotonic = iter([1000.0, 1000.0 + wall_s]), iter([50.0, 50.0 + monotonic_s])
    watch = JumpWatch(wall=lambda: next(wall), monotonic=lambda: next(monotonic))
    told = watch.look()
    assert told == (None if jump is None else pytest.approx(jump))


def test_a_jump_is_told_once() -> None:
    now = [0.0]
    watch = JumpWatch(wall=lambda: now[0], monotonic=lambda: 0.0)
    now[0] = 10.0
    assert watch.look() == 10.0
    assert watch.look() is None
