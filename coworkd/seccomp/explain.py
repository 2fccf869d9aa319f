"""Why a call is refused or allowed, in words, from the rules of both filters (never from their programs).

The kernel asks every filter and takes the strictest answer; between two equally strict ones that of the filter
installed last, which is the admin's. Arguments that are not given count as 0, and the answer says on which it depends.

Pure. Source: seccomp(2).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from msgspec import Struct

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.numbers import exists_elsewhere, names, nearest, numbers
from coworkd.seccomp.rules import INT_MASK, LONG_MASK, Action, Condition, Kind, Op, Rule, RuleSet
from coworkd.seccomp.verdict import Oracle, Verdict

_OP_WORDS = {
    Op.EQ: "is",
    Op.NE: "is not",
    Op.LT: "is below",
    Op.LE: "is at most",
    Op.GE: "is at least",
    Op.GT: "is above",
}


class Explanation(Struct, frozen=True, kw_only=True):
    """`action` as `ALLOW` or `ERRNO(EPERM)`; `filter` is the source of the filter that decided, `rule` its rule in words."""

    syscall: str
    number: int
    action: str
    allowed: bool
    filter: str
    rule: str
    reason: str
    depends_on: tuple[int, ...] = ()
    """Arguments that were not given and on which rules of this call depend."""


def explain(base: RuleSet, admin: RuleSet, syscall: str, args: Mapping[int, int]) -> Explanation:
    """Explain one call under both filters, which must be for one architecture.

    `syscall` is a name or a number; `args` are by index, 0 to 5, of 64 bits, negative ones as the kernel would see them.
    Raises `InvalidParams` for a name nobody has, or one the architecture has not got.
    """
    if base.arch is not admin.arch:
        raise InvalidParams("the two filters are for different architectures", key="arch")
    name, number = _resolve(base, syscall)
    arguments = _arguments(args)
    judged = [(ruleset, Oracle(ruleset)) for ruleset in (admin, base)]
    verdicts = [(ruleset, oracle.judge(base.arch.audit, number, arguments)) for ruleset, oracle in judged]
    deciding, verdict = min(verdicts, key=lambda pair: pair[1].action.strictness)
    compared = {
        condition.index
        for _, oracle in judged
        for rule in oracle.by_number.get(number, ())
        for condition in rule.conditions
    }
    return Explanation(
        syscall=name,
        number=number,
        action=describe_action(verdict.action),
        allowed=verdict.action.kind in (Kind.ALLOW, Kind.LOG),
        filter=deciding.source,
        rule=_describe_verdict(deciding, verdict, number),
        reason=verdict.rule.reason if verdict.rule is not None else "",
        depends_on=tuple(sorted(compared - set(args))),
    )


def describe_action(action: Action) -> str:
    """`ALLOW`, `ERRNO(EPERM)`, `KILL_PROCESS`."""
    if action.kind is Kind.ERRNO:
        return f"ERRNO({errno.errorcode.get(action.errno, action.errno)})"
    return action.kind.name


def describe_rule(rule: Rule) -> str:
    """One rule in words, with its line where it came from a file."""
    place = "" if rule.line is None else f"line {rule.line}: "
    when = " and ".join(_describe_condition(condition) for condition in rule.conditions)
    return f"{place}{describe_action(rule.action)} for {rule.syscall}" + (f" if {when}" if when else "")


def _describe_verdict(ruleset: RuleSet, verdict: Verdict, number: int) -> str:
    if verdict.rule is not None:
        return describe_rule(verdict.rule)
    if verdict.action != ruleset.default:
        return f"number {number:#x} is a call of the x32 ABI"
    return f"no rule matches, so the default: {describe_action(ruleset.default)}"


def _describe_condition(condition: Condition) -> str:
    what = f"argument {condition.index}"
    if condition.mask not in (INT_MASK, LONG_MASK):
        what = f"{what} & {condition.mask:#x}"
    elif condition.mask == INT_MASK:
        what = f"{what} (its low 32 bits)"
    return f"{what} {_OP_WORDS[condition.op]} {condition.value:#x}"


def _resolve(ruleset: RuleSet, syscall: str) -> tuple[str, int]:
    arch = ruleset.arch
    if syscall.isascii() and syscall.isdigit():
        number = int(syscall)
        if number > INT_MASK:
            raise InvalidParams(f"syscall number {number} has more than 32 bits", key="syscall")
        return names(arch).get(number, syscall), number
    found = numbers(arch).get(syscall)
    if found is not None:
        return syscall, found
    near = nearest(syscall, arch)
    if exists_elsewhere(syscall):
        raise InvalidParams(f"{arch.value} has no syscall {syscall}; other architectures have", key="syscall")
    spelling = f"; did you mean {near}?" if near else ""
    raise InvalidParams(f"no architecture has a syscall {syscall!r}{spelling}", key="syscall")


def _arguments(args: Mapping[int, int]) -> tuple[int, ...]:
    for index, value in args.items():
        if not 0 <= index <= 5:
            raise InvalidParams(f"argument {index}: a syscall has arguments 0 to 5", key="arg")
        if not -(1 << 63) <= value <= LONG_MASK:
            raise InvalidParams(f"argument {index}: {value} has more than 64 bits", key="arg")
    return tuple(args.get(index, 0) & LONG_MASK for index in range(6))
