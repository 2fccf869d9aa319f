"""Our own compiler, judged by the oracle through the interpreter."""

from __future__ import annotations

import pytest

from coworkd.seccomp.base_filter import load_base
from coworkd.seccomp.check import check_program
from coworkd.seccomp.generate import TooLong, generate_program
from coworkd.seccomp.interpreter import JEQ, JGE, encode_program
from coworkd.seccomp.numbers import Arch
from coworkd.seccomp.rules import ALLOW, INT_MASK, LONG_MASK, Action, Condition, Kind, Op, Rule, RuleSet

EPERM = Action(Kind.ERRNO, 1)
BOTH = pytest.mark.parametrize("arch", list(Arch))


def ruleset(arch: Arch, *rules: Rule, default: Action = ALLOW) -> RuleSet:
    return RuleSet(source="t", arch=arch, default=default, rules=rules)


def rule(number: int, action: Action, *conditions: Condition) -> Rule:
    return Rule(syscall=f"n{number}", number=number, action=action, conditions=conditions)


def checked(made_from: RuleSet) -> int:
    """The number of instructions of a program that passed the check."""
    program = generate_program(made_from)
    check_program(made_from, encode_program(program))
    return len(program)


@BOTH
def test_generate_base_filters_pass_the_check(arch: Arch) -> None:
    assert checked(load_base("dev", arch)) < 400
    assert checked(load_base("strict", arch)) < 400


@BOTH
def test_generate_no_rules_is_a_handful_of_instructions(arch: Arch) -> None:
    assert checked(ruleset(arch)) <= 9


@BOTH
@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("mask", [LONG_MASK, INT_MASK, 0xFFFF, 0xFF_0000_0000, 0x5555_5555_5555_5555, 0])
@pytest.mark.parametrize("value", [0, 5, INT_MASK, 0x1_0000_0005, LONG_MASK])
def test_generate_compares_as_the_oracle(arch: Arch, op: Op, mask: int, value: int) -> None:
    checked(ruleset(arch, rule(41, EPERM, Condition(3, op, value, mask))))


@BOTH
def test_generate_numbers_at_both_ends(arch: Arch) -> None:
    checked(ruleset(arch, rule(0, EPERM), rule(1, EPERM), rule(471, EPERM), rule(3, ALLOW), default=EPERM))


@BOTH
def test_generate_conditional_refusal_out_of_permission(arch: Arch) -> None:
    checked(
        ruleset(
            arch, rule(41, ALLOW), rule(41, Action(Kind.ERRNO, 97), Condition(0, Op.EQ, 40, INT_MASK)), default=EPERM
        )
    )


@BOTH
def test_generate_reaches_further_than_a_conditional_jump(arch: Arch) -> None:
    many = [
        rule(1, Action(Kind.ERRNO, place % 3 + 1), Condition(place % 6, Op.EQ, place << 30)) for place in range(120)
    ]
    program = generate_program(ruleset(arch, *many, rule(0, EPERM), rule(300, EPERM)))
    assert len(program) > 400
    assert max(max(jt, jf) for code, jt, jf, _ in program if code in (JEQ, JGE)) <= 255
    checked(ruleset(arch, *many, rule(0, EPERM), rule(300, EPERM)))


def test_generate_refuses_more_than_the_kernel_takes() -> None:
    many = [rule(1, EPERM, Condition(0, Op.EQ, place)) for place in range(2000)]
    with pytest.raises(TooLong, match="4096"):
        generate_program(ruleset(Arch.X86_64, *many))
