"""The words of a filter."""

from __future__ import annotations

import pytest

from coworkd.seccomp.rules import ALLOW, INT_MASK, KILL_PROCESS, Action, Condition, Kind, Op, Rule


@pytest.mark.parametrize(
    ("action", "value"),
    [
        (ALLOW, 0x7FFF_0000),
        (Action(Kind.LOG), 0x7FFC_0000),
        (Action(Kind.ERRNO, 38), 0x0005_0026),
        (Action(Kind.TRAP), 0x0003_0000),
        (Action(Kind.KILL_THREAD), 0),
        (KILL_PROCESS, 0x8000_0000),
    ],
)
def test_action_return_value_is_the_kernels(action: Action, value: int) -> None:
    assert action.return_value == value


def test_kinds_are_ordered_as_the_kernel_orders_return_values() -> None:
    signed = [(Action(kind).return_value ^ 0x8000_0000) for kind in Kind]
    assert signed == sorted(signed)
    assert [Action(kind).strictness for kind in Kind] == list(range(len(Kind)))


@pytest.mark.parametrize(
    ("op", "below", "equal", "above"),
    [
        (Op.EQ, False, True, False),
        (Op.NE, True, False, True),
        (Op.LT, True, False, False),
        (Op.LE, True, True, False),
        (Op.GE, False, True, True),
        (Op.GT, False, False, True),
    ],
)
def test_condition_compares_unsigned(op: Op, below: bool, equal: bool, above: bool) -> None:
    condition = Condition(0, op, 1 << 40)
    assert [condition.holds((1 << 40) + step) for step in (-1, 0, 1)] == [below, equal, above]


def test_condition_under_a_mask_ignores_what_is_above() -> None:
    assert Condition(0, Op.EQ, 40, INT_MASK).holds(40 | 1 << 32)
    assert not Condition(0, Op.EQ, 40).holds(40 | 1 << 32)


def test_rule_holds_where_every_condition_does() -> None:
    rule = Rule(syscall="x", number=1, action=ALLOW, conditions=(Condition(0, Op.EQ, 1), Condition(2, Op.GT, 5)))
    assert rule.holds((1, 0, 6, 0, 0, 0))
    assert not rule.holds((1, 0, 5, 0, 0, 0))
    assert not rule.holds((2, 0, 6, 0, 0, 0))
