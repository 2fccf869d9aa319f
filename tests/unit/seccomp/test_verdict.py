"""The oracle: architecture, x32, strictness, default."""

from __future__ import annotations

from coworkd.seccomp.numbers import AUDIT_ARCH_I386, NO_SYSCALL, X32_BIT, Arch
from coworkd.seccomp.rules import ALLOW, KILL_PROCESS, X32, Action, Condition, Kind, Op, Rule, RuleSet
from coworkd.seccomp.verdict import Oracle

EPERM, EACCES = Action(Kind.ERRNO, 1), Action(Kind.ERRNO, 13)


def oracle(*rules: Rule, arch: Arch = Arch.X86_64, default: Action = ALLOW) -> Oracle:
    return Oracle(RuleSet(source="t", arch=arch, default=default, rules=rules))


def rule(action: Action, *conditions: Condition) -> Rule:
    return Rule(syscall="socket", number=41, action=action, conditions=conditions)


def test_foreign_architectures_are_killed_whatever_the_rules() -> None:
    judge = oracle(rule(ALLOW)).judge
    assert judge(AUDIT_ARCH_I386, 41).action == KILL_PROCESS
    assert judge(Arch.AARCH64.audit, 41).action == KILL_PROCESS


def test_x32_is_refused_and_minus_one_is_not_x32() -> None:
    judge = oracle().judge
    assert judge(Arch.X86_64.audit, 41 | X32_BIT).action == X32
    assert judge(Arch.X86_64.audit, 1 << 31).action == X32
    assert judge(Arch.X86_64.audit, NO_SYSCALL).action == ALLOW


def test_aarch64_has_no_x32() -> None:
    assert oracle(arch=Arch.AARCH64).judge(Arch.AARCH64.audit, X32_BIT).action == ALLOW


def test_strictest_rule_decides_in_any_order() -> None:
    when = Condition(0, Op.EQ, 40)
    for rules in ((rule(ALLOW), rule(EPERM, when)), (rule(EPERM, when), rule(ALLOW))):
        judge = oracle(*rules, default=EACCES).judge
        assert judge(Arch.X86_64.audit, 41, (40, 0, 0, 0, 0, 0)).action == EPERM
        assert judge(Arch.X86_64.audit, 41, (1, 0, 0, 0, 0, 0)).action == ALLOW


def test_first_of_two_errnos_decides() -> None:
    assert oracle(rule(EACCES), rule(EPERM)).judge(Arch.X86_64.audit, 41).action == EACCES


def test_default_decides_where_nothing_matches() -> None:
    verdict = oracle(rule(EPERM, Condition(0, Op.EQ, 1))).judge(Arch.X86_64.audit, 41)
    assert (verdict.action, verdict.rule) == (ALLOW, None)
