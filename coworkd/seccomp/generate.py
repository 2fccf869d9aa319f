"""Our own compiler from a rule set to classic BPF.

It stands behind libseccomp for what that cannot say (a syscall newer than it, a conditional refusal out of an unconditional
permission), and does not depend on it. Nothing trusts it: `check` judges its programs like any other's.

Shape of a program: the architecture, x32, then a binary search over the number, then for each number with conditions its
rules, the strictest first. It is written from the end: the target of every jump is already there when the jump is
written, and jumps are known by their distance from the end. A conditional jump reaches 255 instructions; where
it needs more it goes by way of an unconditional one.
"""

from __future__ import annotations

from coworkd.seccomp.interpreter import AND, JA, JEQ, JGE, JGT, LD_ABS, MAX_INSTRUCTIONS, RET_K, Instruction
from coworkd.seccomp.numbers import NO_SYSCALL, X32_BIT
from coworkd.seccomp.rules import FOREIGN_ARCH, INT_MASK, X32, Action, Condition, Op, Rule, RuleSet
from coworkd.seccomp.verdict import Oracle

_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_REACH = 255


class TooLong(Exception):
    """The program would have more instructions than the kernel takes."""


def generate_program(ruleset: RuleSet) -> list[Instruction]:
    """Compile; raises `TooLong`."""
    writer = _Writer()
    bodies = Oracle(ruleset).by_number
    default = writer.answer(ruleset.default)
    leaves: list[tuple[int, int]] = [(0, default)]
    for number, rules in sorted(bodies.items()):
        for first, target in ((number, _body(writer, rules, ruleset.default)), (number + 1, default)):
            if leaves[-1][0] == first:
                leaves.pop()
            if not leaves or leaves[-1][1] != target:
                leaves.append((first, target))
    start = _search(writer, leaves)
    if ruleset.arch.has_x32:
        x32 = writer.branch(JEQ, NO_SYSCALL, start, writer.answer(X32))
        start = writer.branch(JGE, X32_BIT, x32, start)
    start = writer.load(_NUMBER_AT, start)
    start = writer.branch(JEQ, ruleset.arch.audit, start, writer.answer(FOREIGN_ARCH))
    writer.load(_ARCH_AT, start)
    if len(writer.backwards) > MAX_INSTRUCTIONS:
        raise TooLong(f"{ruleset.source}: {len(writer.backwards)} instructions; the kernel takes {MAX_INSTRUCTIONS}")
    return writer.backwards[::-1]


class _Writer:
    """The program so far, last instruction first. A target is the index of an instruction in it."""

    def __init__(self) -> None:
        self.backwards: list[Instruction] = []
        self._answers: dict[int, int] = {}

    def _put(self, instruction: Instruction) -> int:
        self.backwards.append(instruction)
        return len(self.backwards) - 1

    def _jump(self, target: int) -> int:
        return self._put((JA, 0, 0, len(self.backwards) - target - 1))

    def answer(self, action: Action) -> int:
        """Where a program that has decided for `action` goes; one return for each action, written at first use."""
        value = action.return_value
        if value not in self._answers:
            self._answers[value] = self._put((RET_K, 0, 0, value))
        return self._answers[value]

    def load(self, offset: int, then: int) -> int:
        """Load a word of seccomp_data and go on at `then`."""
        if then != len(self.backwards) - 1:
            self._jump(then)
        return self._put((LD_ABS, 0, 0, offset))

    def mask(self, mask: int, then: int) -> int:
        """A &= mask, then go on at `then`, which must be what was written last."""
        return then if mask == INT_MASK else self._put((AND, 0, 0, mask))

    def branch(self, code: int, k: int, if_true: int, if_false: int) -> int:
        """A conditional jump to either target, however far."""
        if if_true == if_false:
            return if_true
        # The other target's trampoline may come between, so this one has one instruction less to reach.
        if len(self.backwards) - if_true > _REACH:
            if_true = self._jump(if_true)
        if len(self.backwards) - if_false - 1 > _REACH:
            if_false = self._jump(if_false)
        here = len(self.backwards)
        return self._put((code, here - if_true - 1, here - if_false - 1, k))


def _search(writer: _Writer, leaves: list[tuple[int, int]]) -> int:
    """Binary search over (first number, target), ascending; the number is in A."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    above = _search(writer, leaves[middle:])
    below = _search(writer, leaves[:middle])
    return writer.branch(JGE, leaves[middle][0], above, below)


def _body(writer: _Writer, rules: list[Rule], default: Action) -> int:
    """The rules of one number, in the order in which they decide."""
    target = writer.answer(default)
    for rule in reversed(rules):
        matched = writer.answer(rule.action)
        for condition in reversed(rule.conditions):
            matched = _condition(writer, condition, matched, target)
        target = matched
    return target


def _condition(writer: _Writer, condition: Condition, if_true: int, if_false: int) -> int:
    """The comparison of one argument: the low half alone where nothing above it counts, else both."""
    if if_true == if_false:
        return if_true
    if condition.op in (Op.NE, Op.LT, Op.LE):
        if_true, if_false = if_false, if_true
    ordered = {Op.GE: JGE, Op.LT: JGE, Op.GT: JGT, Op.LE: JGT}.get(condition.op)
    low_at = _ARGUMENTS_AT + 8 * condition.index
    mask_low, mask_high = condition.mask & INT_MASK, condition.mask >> 32
    value_low, value_high = condition.value & INT_MASK, condition.value >> 32
    target = writer.branch(ordered or JEQ, value_low, if_true, if_false)
    target = writer.load(low_at, writer.mask(mask_low, target))
    if mask_high == 0 and value_high == 0:
        return target
    target = writer.branch(JEQ, value_high, target, if_false)
    if ordered:
        target = writer.branch(JGT, value_high, if_true, target)
    return writer.load(low_at + 4, writer.mask(mask_high, target))
