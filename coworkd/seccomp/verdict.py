"""What a rule set says of one call: the specification of `rules` as code.

It knows nothing of BPF, so it can judge what a compiler made. Pure.
"""

from __future__ import annotations

from msgspec import Struct

from coworkd.seccomp.numbers import NO_SYSCALL, X32_BIT
from coworkd.seccomp.rules import FOREIGN_ARCH, X32, Action, Rule, RuleSet

NO_ARGUMENTS = (0, 0, 0, 0, 0, 0)


class Verdict(Struct, frozen=True):
    """The action, and the rule that decided, or None where the default or the architecture did."""

    action: Action
    rule: Rule | None = None


class Oracle:
    """Answers for one rule set; `by_number` holds the rules of each number, the strictest first, stable between equals."""

    def __init__(self, ruleset: RuleSet) -> None:
        self.ruleset = ruleset
        self.by_number: dict[int, list[Rule]] = {}
        for rule in ruleset.rules:
            self.by_number.setdefault(rule.number, []).append(rule)
        for rules in self.by_number.values():
            rules.sort(key=lambda rule: rule.action.strictness)

    def judge(self, audit_arch: int, number: int, arguments: tuple[int, ...] = NO_ARGUMENTS) -> Verdict:
        """Judge one call; `number` is unsigned 32 bits and may be any, `arguments` are six of 64 bits."""
        if audit_arch != self.ruleset.arch.audit:
            return Verdict(FOREIGN_ARCH)
        if self.ruleset.arch.has_x32 and X32_BIT <= number != NO_SYSCALL:
            return Verdict(X32)
        for rule in self.by_number.get(number, ()):
            if rule.holds(arguments):
                return Verdict(rule.action, rule)
        return Verdict(self.ruleset.default)
