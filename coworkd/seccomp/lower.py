"""From a rule set to what libseccomp can be told, or the reason why it cannot.

libseccomp's own meaning of overlapping rules is not ours: an unconditional rule replaces conditional ones, whatever their
actions, and the order inside its decision tree is not specified. So a rule set is only handed over where nothing overlaps
with a different action. It also compares whole 64-bit arguments except with MASKED_EQ, so every comparison under a mask
is rewritten as a set of MASKED_EQ ("cubes"): a range of the low bits is a few aligned blocks, each a mask and a value.

Pure. Source: seccomp_rule_add(3).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from math import prod
from typing import Any

from coworkd.seccomp.rules import LONG_MASK, Condition, Op, Rule, RuleSet
from coworkd.seccomp.verdict import Oracle

MAX_CUBES = 256
"""Of one rule. More would take libseccomp seconds."""

Cube = dict[int, tuple[int, int]]
"""By argument: mask and value; all must be equal."""


class Inexpressible(Exception):
    """libseccomp cannot say this; the text is the reason."""


def lower_ruleset(ruleset: RuleSet) -> list[dict[str, Any]]:
    """Rules for `coworkd.system.libseccomp`: `{name, number, action, args: [[index, op, a, b]]}`; raises `Inexpressible`."""
    lowered: list[dict[str, Any]] = []
    for rules in Oracle(ruleset).by_number.values():
        for rule, args in _lower_number(rules, ruleset):
            action = [rule.action.kind.value, rule.action.errno]
            lowered.append({"name": rule.syscall, "number": rule.number, "action": action, "args": args})
    return lowered


def _lower_number(rules: list[Rule], ruleset: RuleSet) -> Iterator[tuple[Rule, list[list[Any]]]]:
    """The rules of one number, the strictest first. What equals the default is left out: libseccomp drops it anyway."""
    name = rules[0].syscall
    if not rules[0].conditions:
        rules = rules[:1]
    mixed = len({rule.action for rule in rules}) > 1
    kept = [rule for rule in rules if rule.action != ruleset.default]
    if not mixed and any(not rule.conditions for rule in rules):
        kept = [rule for rule in kept if not rule.conditions][:1]
    if not mixed:
        for rule in kept:
            yield from ((rule, args) for args in _comparisons(rule))
        return
    cubes = [(rule, list(_cubes(rule))) for rule in rules]
    for (one, ours), (other, theirs) in combinations(cubes, 2):
        if one.action != other.action and any(_overlap(left, right) for left in ours for right in theirs):
            raise Inexpressible(f"{name}: two of its rules overlap with different actions")
    for rule, of_rule in cubes:
        if rule.action != ruleset.default:
            yield from ((rule, _masked(cube)) for cube in of_rule)


def _comparisons(rule: Rule) -> Iterator[list[list[Any]]]:
    """A rule with plain 64-bit comparisons of different arguments goes as it stands, any other as cubes."""
    indexes = [condition.index for condition in rule.conditions]
    if all(condition.mask == LONG_MASK for condition in rule.conditions) and len(set(indexes)) == len(indexes):
        yield [[condition.index, condition.op.value, condition.value, 0] for condition in rule.conditions]
    else:
        yield from (_masked(cube) for cube in _cubes(rule))


def _masked(cube: Cube) -> list[list[Any]]:
    return [[index, "masked_eq", mask, value] for index, (mask, value) in sorted(cube.items())]


def _overlap(left: Cube, right: Cube) -> bool:
    return all(
        (left[index][1] ^ right[index][1]) & left[index][0] & right[index][0] == 0 for index in left.keys() & right
    )


def _cubes(rule: Rule) -> Iterator[Cube]:
    """The disjunction of cubes that is the conjunction of the rule's conditions."""
    by_mask: dict[tuple[int, int], list[Condition]] = {}
    for condition in rule.conditions:
        by_mask.setdefault((condition.index, condition.mask), []).append(condition)
    choices = [
        [(index, block_mask, value) for block_mask, value in _blocks(rule, mask, conditions)]
        for (index, mask), conditions in by_mask.items()
    ]
    total = prod(len(choice) for choice in choices)
    if total > MAX_CUBES:
        raise Inexpressible(f"{rule.syscall}: {total} masked comparisons for one rule")
    for chosen in product(*choices):
        cube = _intersection(chosen)
        if cube is not None:
            yield cube


def _intersection(chosen: tuple[tuple[int, int, int], ...]) -> Cube | None:
    """All of them at once, or None where two contradict each other about a bit."""
    cube: Cube = {}
    for index, mask, value in chosen:
        had_mask, had_value = cube.get(index, (0, 0))
        if (had_value ^ value) & had_mask & mask:
            return None
        cube[index] = (had_mask | mask, had_value | value)
    return cube


def _blocks(rule: Rule, mask: int, conditions: list[Condition]) -> list[tuple[int, int]]:
    """The conditions on one argument under one mask, as (mask, value) blocks."""
    if len(conditions) == 1 and conditions[0].op is Op.EQ:
        value = conditions[0].value
        return [(mask, value)] if value & ~mask == 0 else []
    if mask & (mask + 1):
        return _blocks_of_bits(rule, mask, conditions)
    ranges = [(0, mask)]
    for condition in conditions:
        ranges = [kept for first, last in ranges for kept in _narrow(first, last, condition)]
    return [block for first, last in ranges for block in _aligned(first, last, mask)]


def _blocks_of_bits(rule: Rule, mask: int, conditions: list[Condition]) -> list[tuple[int, int]]:
    """Under a mask with holes only "not equal" has a meaning in blocks: some bit of the mask differs."""
    if len(conditions) > 1 or conditions[0].op is not Op.NE or conditions[0].value & ~mask:
        raise Inexpressible(f"{rule.syscall}: an order of values under a mask with holes")
    value = conditions[0].value
    return [(1 << bit, ~value & 1 << bit) for bit in range(64) if mask >> bit & 1]


def _narrow(first: int, last: int, condition: Condition) -> Iterator[tuple[int, int]]:
    """The part of [first, last] that meets the condition: none, one or two ranges."""
    value = condition.value
    wanted = {
        Op.EQ: [(value, value)],
        Op.NE: [(first, value - 1), (value + 1, last)],
        Op.LT: [(first, value - 1)],
        Op.LE: [(first, value)],
        Op.GE: [(value, last)],
        Op.GT: [(value + 1, last)],
    }[condition.op]
    for low, high in wanted:
        if max(low, first) <= min(high, last):
            yield max(low, first), min(high, last)


def _aligned(first: int, last: int, mask: int) -> Iterator[tuple[int, int]]:
    """[first, last] cut into aligned blocks of a power of two, the fewest there are."""
    while first <= last:
        size = first & -first or mask + 1
        while first + size - 1 > last:
            size >>= 1
        yield mask & ~(size - 1), first
        first += size
