"""What libseccomp is told means what the rules mean, or it is told nothing."""

from __future__ import annotations

import pytest

from coworkd.seccomp.lower import Inexpressible, lower_ruleset
from coworkd.seccomp.numbers import Arch
from coworkd.seccomp.rules import ALLOW, INT_MASK, LONG_MASK, Action, Condition, Kind, Op, Rule, RuleSet

EPERM, ENOSYS = Action(Kind.ERRNO, 1), Action(Kind.ERRNO, 38)


def lowered(*rules: Rule, default: Action = ALLOW) -> list[tuple[list[object], list[list[object]]]]:
    made = lower_ruleset(RuleSet(source="t", arch=Arch.X86_64, default=default, rules=rules))
    return [(rule["action"], rule["args"]) for rule in made]


def rule(action: Action, *conditions: Condition) -> Rule:
    return Rule(syscall="socket", number=41, action=action, conditions=conditions)


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("mask", [INT_MASK, 0xFFFF, 0xF])
@pytest.mark.parametrize("value", [0, 1, 7, 15])
def test_lower_masked_comparison_is_the_same_set(op: Op, mask: int, value: int) -> None:
    condition = Condition(0, op, value, mask)
    blocks = [args[0] for _, args in lowered(rule(EPERM, condition))]
    for argument in (0, 1, 2, 6, 7, 8, 14, 15, 16, 0xFFFE, 0xFFFF, 0x10000, INT_MASK, 1 << 32, 7 | 1 << 32, LONG_MASK):
        told = any(argument & a == b for _, _, a, b in blocks)  # type: ignore[operator]
        assert told == condition.holds(argument), argument


def test_lower_not_equal_under_a_mask_with_holes_is_a_block_a_bit() -> None:
    blocks = [args[0] for _, args in lowered(rule(EPERM, Condition(0, Op.NE, 0, 0x7E02_0000)))]
    assert {mask for _, _, mask, value in blocks if mask == value} == {1 << 17, *(1 << bit for bit in range(25, 31))}


def test_lower_whole_comparisons_go_as_they_stand() -> None:
    assert lowered(rule(EPERM, Condition(0, Op.GT, 9), Condition(1, Op.NE, 2))) == [
        (["errno", 1], [[0, "gt", 9, 0], [1, "ne", 2, 0]])
    ]


def test_lower_contradiction_is_no_rule() -> None:
    assert lowered(rule(EPERM, Condition(0, Op.EQ, 1, INT_MASK), Condition(0, Op.EQ, 2, 0xF))) == []


def test_lower_leaves_out_what_equals_the_default() -> None:
    assert lowered(rule(EPERM), default=EPERM) == []


def test_lower_unconditional_rule_stands_alone() -> None:
    assert lowered(rule(EPERM), rule(EPERM, Condition(0, Op.EQ, 1))) == [(["errno", 1], [])]


def test_lower_refuses_a_condition_against_a_permission() -> None:
    with pytest.raises(Inexpressible, match="overlap"):
        lowered(rule(ALLOW), rule(EPERM, Condition(0, Op.EQ, 40, INT_MASK)), default=ENOSYS)


def test_lower_takes_different_actions_that_do_not_overlap() -> None:
    found = lowered(
        rule(ALLOW, Condition(0, Op.EQ, 1, INT_MASK)), rule(EPERM, Condition(0, Op.EQ, 2, INT_MASK)), default=ENOSYS
    )
    assert {action[0] for action, _ in found} == {"allow", "errno"}


def test_lower_refuses_too_many_blocks() -> None:
    conditions = [Condition(index, Op.NE, 5, INT_MASK) for index in range(3)]
    with pytest.raises(Inexpressible, match="masked comparisons"):
        lowered(rule(EPERM, *conditions))


def test_lower_refuses_an_order_under_a_mask_with_holes() -> None:
    with pytest.raises(Inexpressible, match="holes"):
        lowered(rule(EPERM, Condition(0, Op.GT, 5, 0xF0F)))
