"""Explanations name the filter, the rule and the reason."""

from __future__ import annotations

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.base_filter import load_base
from coworkd.seccomp.explain import Explanation, explain
from coworkd.seccomp.numbers import Arch
from coworkd.seccomp.oci import load_oci
from coworkd.seccomp.rules import RuleSet

BASE = load_base("dev", Arch.X86_64)
OPEN = b'{"defaultAction": "SCMP_ACT_ALLOW",\n "syscalls": [\n{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "comment": "why"}]}'


def admin(data: bytes = OPEN, arch: Arch = Arch.X86_64) -> RuleSet:
    return load_oci(data, name="mine.json", arch=arch, kernel=(6, 8))


def ask(syscall: str, **args: int) -> Explanation:
    return explain(BASE, admin(), syscall, {int(key[1:]): value for key, value in args.items()})


def test_explain_names_the_base_filters_rule() -> None:
    told = ask("socket", a0=40 | 1 << 32, a1=1, a2=0)
    assert (told.action, told.allowed, told.filter) == ("ERRNO(EAFNOSUPPORT)", False, "base:dev")
    assert "argument 0 (its low 32 bits) is not 0x1" in told.rule
    assert "AF_VSOCK" in told.reason


def test_explain_names_the_admins_file_and_line() -> None:
    told = ask("chmod")
    assert (told.action, told.filter, told.rule) == ("ERRNO(EPERM)", "mine.json", "line 3: ERRNO(EPERM) for chmod")
    assert told.reason == "why"


def test_explain_says_when_nothing_refuses() -> None:
    told = ask("read")
    assert (told.action, told.allowed, told.rule) == ("ALLOW", True, "no rule matches, so the default: ALLOW")


def test_explain_tells_on_which_arguments_it_depends() -> None:
    assert ask("socket", a0=1).depends_on == (1, 2)
    assert ask("read").depends_on == ()


def test_explain_last_installed_of_two_errnos_decides() -> None:
    both = b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}'
    assert explain(BASE, admin(both), "bpf", {}).action == "ERRNO(ENOSYS)"


def test_explain_takes_numbers_and_x32() -> None:
    assert ask("41", a0=1, a1=1).syscall == "socket"
    assert "x32" in ask(str(41 | 0x4000_0000)).rule


def test_explain_takes_negative_arguments() -> None:
    assert ask("personality", a0=-1).allowed


@pytest.mark.parametrize(
    ("syscall", "why"),
    [("sokcet", "did you mean socket"), ("socketcall", "other architectures"), ("4294967296", "32 bits")],
)
def test_explain_refuses_unknown_calls(syscall: str, why: str) -> None:
    with pytest.raises(InvalidParams, match=why):
        ask(syscall)


@pytest.mark.parametrize("args", [{6: 0}, {-1: 0}, {0: 1 << 64}, {0: -(1 << 63) - 1}])
def test_explain_refuses_impossible_arguments(args: dict[int, int]) -> None:
    with pytest.raises(InvalidParams, match="argument"):
        explain(BASE, admin(), "read", args)


def test_explain_refuses_filters_of_two_architectures() -> None:
    with pytest.raises(InvalidParams, match="different architectures"):
        explain(BASE, admin(arch=Arch.AARCH64), "read", {})
