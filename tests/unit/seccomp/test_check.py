"""The check finds every kind of wrong program, and finds it fast."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from coworkd.model.errors import InternalError
from coworkd.seccomp.base_filter import load_base
from coworkd.seccomp.check import check_program
from coworkd.seccomp.generate import generate_program
from coworkd.seccomp.interpreter import AND, JEQ, RET_K, Instruction, encode_program
from coworkd.seccomp.numbers import Arch
from coworkd.seccomp.rules import ALLOW, INT_MASK, LONG_MASK, Action, Condition, Kind, Op, Rule, RuleSet

BASE = load_base("dev", Arch.X86_64)
ENOSYS = Action(Kind.ERRNO, 38)


@dataclass(frozen=True)
class Wrong:
    """A rule set that differs from the base filter as an error would: `check` must tell a program of it from the base's."""

    name: str
    rules: tuple[Rule, ...]


def _without(syscall: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in BASE.rules if rule.syscall != syscall)


def _changed(syscall: str, index: int, value: int, new: Condition) -> tuple[Rule, ...]:
    def change(rule: Rule) -> Rule:
        conditions = tuple(
            new if rule.syscall == syscall and (condition.index, condition.value) == (index, value) else condition
            for condition in rule.conditions
        )
        return Rule(syscall=rule.syscall, number=rule.number, action=rule.action, conditions=conditions)

    return tuple(change(rule) for rule in BASE.rules)


WRONG = [
    Wrong("a refusal lost", _without("keyctl")),
    Wrong("TIOCSTI on 64 bits", _changed("ioctl", 1, 0x5412, Condition(1, Op.EQ, 0x5412, LONG_MASK))),
    Wrong("a namespace flag lost", _changed("clone", 0, 0, Condition(0, Op.NE, 0, 0x7E02_0000 & ~0x1000_0000))),
    Wrong("a family compared on 64 bits", _changed("socket", 0, 2, Condition(0, Op.EQ, 2, LONG_MASK))),
    Wrong("the netlink protocol on 64 bits", _changed("socket", 2, 0, Condition(2, Op.NE, 0, 0xFFFF))),
    Wrong("a syscall the kernel has not yet", (*BASE.rules, Rule(syscall="x", number=490, action=ENOSYS))),
    Wrong("an errno of another", tuple(
        Rule(syscall=rule.syscall, number=rule.number, conditions=rule.conditions,
             action=ENOSYS if rule.syscall == "bpf" else rule.action) for rule in BASE.rules)),
    Wrong("a value that no rule has", (
        *BASE.rules, Rule(syscall="ioctl", number=16, action=ENOSYS, conditions=(Condition(1, Op.EQ, 0xBEEF, INT_MASK),)))),
    Wrong("an argument that no rule has", (
        *BASE.rules, Rule(syscall="socket", number=41, action=ENOSYS, conditions=(Condition(5, Op.EQ, 0xBEEF, INT_MASK),)))),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_check_finds(wrong: Wrong) -> None:
    program = generate_program(RuleSet(source="t", arch=Arch.X86_64, default=ALLOW, rules=wrong.rules))
    with pytest.raises(InternalError, match="it is not used"):
        check_program(BASE, encode_program(program))


def test_check_finds_a_foreign_architecture_let_in() -> None:
    program = generate_program(BASE)
    code, jump_true, _, k = program[1]
    assert code == JEQ
    open_to_all: Instruction = (code, jump_true, jump_true, k)
    with pytest.raises(InternalError, match="kill_process"):
        check_program(BASE, encode_program([program[0], open_to_all, *program[2:]]))


def test_check_finds_x32_let_in() -> None:
    x32_refused = generate_program(BASE)
    let_in = [(RET_K, 0, 0, ALLOW.return_value) if instruction == (RET_K, 0, 0, ENOSYS.return_value) else instruction
              for instruction in x32_refused]  # fmt: skip
    with pytest.raises(InternalError):
        check_program(BASE, encode_program(let_in))


def test_check_finds_any_widened_mask() -> None:
    program = generate_program(BASE)
    places = [place for place, (code, _, _, k) in enumerate(program) if code == AND and k == 0x7E02_0000]
    assert places
    for bit in (17, 25, 26, 27, 28, 29, 30):
        broken = list(program)
        broken[places[0]] = (AND, 0, 0, 0x7E02_0000 & ~(1 << bit))
        with pytest.raises(InternalError, match="syscall 56"):
            check_program(BASE, encode_program(broken))


def test_check_names_what_differs() -> None:
    program = generate_program(RuleSet(source="t", arch=Arch.X86_64, default=ALLOW, rules=_without("reboot")))
    with pytest.raises(InternalError) as raised:
        check_program(BASE, encode_program(program))
    assert raised.value.details == {"stage": "seccomp", "syscall": 169}


def test_check_refuses_what_is_no_program() -> None:
    with pytest.raises(InternalError, match="no program"):
        check_program(BASE, b"\0" * 12)


def test_check_stays_bounded_with_many_conditions() -> None:
    rules = tuple(
        Rule(syscall="x", number=1, action=ENOSYS, conditions=(Condition(place % 6, Op.EQ, place << 30),))
        for place in range(120)
    )
    many = RuleSet(source="t", arch=Arch.X86_64, default=ALLOW, rules=rules)
    check_program(many, encode_program(generate_program(many)))
