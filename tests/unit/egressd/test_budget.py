from __future__ import annotations

from coworkd.egressd.budget import TURN_S, Budget
from coworkd.egressd.loop import Loop
from tests.unit.egressd.test_loop import Clock


def test_a_turns_time_is_spent_and_the_next_turn_has_its_own() -> None:
    loop, clock = Loop(), Clock()
    budget = Budget(loop, clock)
    assert budget.is_left
    for _ in range(2):
        since = budget.begin()
        clock.now += TURN_S * 0.6
        assert budget.is_left
        assert budget.spend(since) > 0
    assert not budget.is_left
    loop.turn(0)
    assert budget.is_left
    budget.spend(budget.begin())
    assert budget.is_left
    loop.close()
