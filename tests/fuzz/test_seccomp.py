"""Any rules compile to programs that say the same; any bytes are a profile or `InvalidParams`, a program or `ProgramError`."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.generate import generate_program
from coworkd.seccomp.interpreter import (
    ALLOWED_CODES,
    Instruction,
    ProgramError,
    decode_program,
    encode_program,
    run_program,
    seccomp_data,
)  # fmt: skip
from coworkd.seccomp.located_json import parse_json
from coworkd.seccomp.lower import Inexpressible, lower_ruleset
from coworkd.seccomp.numbers import Arch
from coworkd.seccomp.oci import load_oci
from coworkd.seccomp.rules import ALLOW, INT_MASK, LONG_MASK, Action, Condition, Kind, Op, Rule, RuleSet
from coworkd.seccomp.verdict import Oracle

ERRNO = st.builds(Action, st.just(Kind.ERRNO), st.integers(1, 4))
ACTIONS = st.one_of(ERRNO, st.sampled_from([ALLOW, Action(Kind.KILL_PROCESS), Action(Kind.LOG), Action(Kind.TRAP)]))
WORDS = st.one_of(
    st.integers(0, 20),
    st.integers(0, LONG_MASK),
    st.sampled_from([INT_MASK, 1 << 32, LONG_MASK, 40 | 1 << 32, 1 << 31]),
)
MASKS = st.one_of(st.sampled_from([INT_MASK, LONG_MASK, 0xF, 0x7E02_0000]), WORDS)
CONDITIONS = st.builds(Condition, st.integers(0, 5), st.sampled_from(Op), WORDS, MASKS)
RULES = st.builds(
    lambda number, action, conditions: Rule(syscall="socket", number=number, action=action, conditions=tuple(conditions)),
    st.integers(0, 8), ACTIONS, st.lists(CONDITIONS, max_size=3),
)  # fmt: skip
RULESETS = st.builds(
    lambda arch, default, rules: RuleSet(source="f", arch=arch, default=default, rules=tuple(rules)),
    st.sampled_from(Arch), ACTIONS, st.lists(RULES, max_size=8),
)  # fmt: skip
ARGUMENTS = st.tuples(*[WORDS] * 6)
INSTRUCTIONS: st.SearchStrategy[Instruction] = st.tuples(
    st.one_of(st.sampled_from(sorted(ALLOWED_CODES)), st.integers(0, 0xFFFF)),
    st.integers(0, 6), st.integers(0, 6), st.one_of(st.integers(0, 70), st.integers(0, INT_MASK)),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(RULESETS, st.lists(st.tuples(st.integers(0, 9), ARGUMENTS), min_size=1, max_size=20))
def test_generated_program_says_what_the_oracle_says(
    ruleset: RuleSet, calls: list[tuple[int, tuple[int, ...]]]
) -> None:
    program = decode_program(encode_program(generate_program(ruleset)))
    oracle = Oracle(ruleset)
    near = [condition.value for rule in ruleset.rules for condition in rule.conditions][:6]
    calls = [*calls, *((number, (*near, *(0,) * (6 - len(near)))) for number in range(9))]
    for number, arguments in calls:
        wanted = oracle.judge(ruleset.arch.audit, number, arguments).action.return_value
        assert run_program(program, seccomp_data(ruleset.arch.audit, number, arguments)) == wanted


@settings(max_examples=150, deadline=None)
@given(st.lists(CONDITIONS, min_size=1, max_size=3), st.lists(ARGUMENTS, min_size=1, max_size=20))
def test_lowered_rule_is_the_same_set(conditions: list[Condition], calls: list[tuple[int, ...]]) -> None:
    rule = Rule(syscall="socket", number=41, action=Action(Kind.ERRNO, 1), conditions=tuple(conditions))
    with suppress(Inexpressible):
        lowered = lower_ruleset(RuleSet(source="f", arch=Arch.X86_64, default=ALLOW, rules=(rule,)))
        for arguments in calls:
            told = any(
                all(
                    arguments[index] & a == b
                    if op == "masked_eq"
                    else Condition(index, Op(op), a).holds(arguments[index])
                    for index, op, a, b in alternative["args"]
                )
                for alternative in lowered
            )
            assert told == rule.holds(arguments)


@settings(max_examples=200, deadline=None)
@given(st.lists(INSTRUCTIONS, max_size=12), ARGUMENTS)
def test_whatever_decodes_runs_to_an_end(program: list[Instruction], arguments: tuple[int, ...]) -> None:
    with suppress(ProgramError):
        decoded = decode_program(encode_program([*program, (0x06, 0, 0, 7)]))
        assert 0 <= run_program(decoded, seccomp_data(Arch.X86_64.audit, 1, arguments)) <= INT_MASK


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='{}[]:,"\\ \n0123abtrue', max_size=60).map(str.encode)))
def test_any_bytes_are_json_or_invalid_params(data: bytes) -> None:
    with suppress(InvalidParams):
        parse_json(data, "f")
        json.loads(data.decode("utf-8-sig"))


KEYS = st.sampled_from(["defaultAction", "syscalls", "names", "action", "args", "index", "value", "op", "archMap", "x"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 1 << 65), st.sampled_from(["SCMP_ACT_ALLOW", "read", ""])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON, JSON)
def test_any_json_is_a_profile_or_invalid_params(document: object, syscalls: object) -> None:
    for candidate in (document, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}):
        with suppress(InvalidParams):
            load_oci(json.dumps(candidate).encode(), name="f", arch=Arch.X86_64, kernel=(6, 1))
