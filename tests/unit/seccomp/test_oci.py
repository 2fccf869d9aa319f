"""OCI profiles: what they mean, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.numbers import Arch, numbers
from coworkd.seccomp.oci import load_oci
from coworkd.seccomp.rules import INT_MASK, LONG_MASK, Action, Condition, Kind, Op, RuleSet
from coworkd.seccomp.verdict import Oracle

ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"


def load(*syscalls: dict[str, Any], arch: Arch = Arch.X86_64, kernel: tuple[int, int] = (6, 8), **top: Any) -> RuleSet:
    document = {"defaultAction": ERRNO, "syscalls": list(syscalls), **top}
    return load_oci(json.dumps(document, indent=1).encode(), name="f.json", arch=arch, kernel=kernel)


def allow(*names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": ALLOW, **more}


def arg(index: int, op: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{op}"}


def loaded_names(*syscalls: dict[str, Any], **how: Any) -> set[str]:
    return {rule.syscall for rule in load(*syscalls, **how).rules}


def test_oci_reads_actions_and_errnos() -> None:
    ruleset = load(
        {"names": ["bpf"], "action": ERRNO, "errnoRet": 38},
        {"names": ["reboot"], "action": ERRNO, "errno": "EACCES"},
        {"names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"name": "read", "action": ALLOW},
        defaultErrnoRet=22,
    )
    assert ruleset.default == Action(Kind.ERRNO, 22)
    assert [rule.action for rule in ruleset.rules] == [
        Action(Kind.ERRNO, 38), Action(Kind.ERRNO, 13), Action(Kind.KILL_PROCESS), Action(Kind.ALLOW),
    ]  # fmt: skip
    assert load().default == Action(Kind.ERRNO, 1)


@pytest.mark.parametrize("word", ["SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"])
def test_oci_refuses_actions_that_need_someone_else(word: str) -> None:
    with pytest.raises(InvalidParams, match=f"{word} is not taken here"):
        load({"names": ["read"], "action": word})


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"excludes": {"arches": ["s390x"]}}, True),
        ({"includes": {"minKernel": "6.8"}}, True),
        ({"includes": {"minKernel": "6.9"}}, False),
        ({"includes": {"minKernel": "4.18"}}, True),
        ({"excludes": {"minKernel": "6.8"}}, False),
        ({"excludes": {"minKernel": "6.10"}}, True),
        ({"includes": {}, "excludes": {}}, True),
        ({"includes": None}, True),
    ],
)
def test_oci_includes_and_excludes(filters: dict[str, Any], kept: bool) -> None:
    assert (loaded_names(allow("read", **filters)) == {"read"}) is kept


def test_oci_int_arguments_are_compared_on_32_bits() -> None:
    (rule,) = load(allow("socket", args=[arg(0, "EQ", 40)])).rules
    assert rule.conditions == (Condition(0, Op.EQ, 40, INT_MASK),)
    (rule,) = load(allow("mmap", args=[arg(1, "LE", 1 << 40)])).rules
    assert rule.conditions == (Condition(1, Op.LE, 1 << 40, LONG_MASK),)


@pytest.mark.parametrize("op", ["NE", "EQ", "LT", "LE", "GE", "GT"])
def test_oci_upper_half_of_an_int_never_matters(op: str) -> None:
    oracle = Oracle(load(allow("socket", args=[arg(0, op, 40)])))
    for family in (0, 39, 40, 41, 0xFFFF_FFFF):
        low, high = (
            oracle.judge(Arch.X86_64.audit, 41, (value, 0, 0, 0, 0, 0)).action for value in (family, family | 1 << 32)
        )
        assert low == high


def test_oci_masked_equality_has_its_mask_first() -> None:
    (rule,) = load(allow("clone", args=[arg(0, "MASKED_EQ", 0x7E02_0000, 0x20000)])).rules
    assert rule.conditions == (Condition(0, Op.EQ, 0x20000, 0x7E02_0000),)


def test_oci_takes_a_negative_int_in_64_bits() -> None:
    (rule,) = load(allow("personality", args=[arg(0, "EQ", LONG_MASK)])).rules
    assert rule.conditions == (Condition(0, Op.EQ, INT_MASK, INT_MASK),)


def test_oci_one_argument_twice_is_a_rule_each_and_told() -> None:
    ruleset = load(allow("socket", args=[arg(0, "EQ", 1), arg(0, "EQ", 2)]))
    assert [rule.conditions[0].value for rule in ruleset.rules] == [1, 2]
    assert "compared twice" in ruleset.warnings[0]


def test_oci_strictest_of_overlapping_rules_decides() -> None:
    refused = {"names": ["socket"], "action": ERRNO, "errnoRet": 97, "args": [arg(0, "EQ", 40)]}
    oracle = Oracle(load(allow("socket"), refused))
    assert oracle.judge(Arch.X86_64.audit, 41, (40 | 1 << 32, 0, 0, 0, 0, 0)).action == Action(Kind.ERRNO, 97)


def test_oci_names_of_other_architectures_are_left_out() -> None:
    assert loaded_names(allow("read", "socketcall", "arm_fadvise64_64")) == {"read"}
    assert loaded_names(allow("open", "openat"), arch=Arch.AARCH64) == {"openat"}


def test_oci_knows_syscalls_newer_than_libseccomp() -> None:
    (rule,) = load(allow("file_setattr")).rules
    assert rule.number == numbers(Arch.X86_64)["file_setattr"] == 469


def test_oci_unknown_name_in_a_permission_is_a_warning() -> None:
    assert (
        "f.json:6: no architecture has a syscall 'opennat'; did you mean 'openat'?"
        in load(allow("opennat")).warnings[0]
    )


def test_oci_unknown_name_in_a_refusal_is_an_error() -> None:
    refused = {"names": ["sokcet"], "action": ERRNO}
    with pytest.raises(InvalidParams, match="did you mean 'socket'") as raised:
        load(refused, defaultAction=ALLOW)
    assert raised.value.details == {"file": "f.json", "line": 6, "key": "names"}


@pytest.mark.parametrize("listed", [{"architectures": ["SCMP_ARCH_AARCH64"]},
                                    {"archMap": [{"architecture": "SCMP_ARCH_S390X"}]}])  # fmt: skip
def test_oci_refuses_a_file_for_other_machines(listed: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match="SCMP_ARCH_X86_64"):
        load(**listed)


def test_oci_takes_a_file_that_lists_the_guest() -> None:
    assert load(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]).warnings == ()
    assert load(archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]}]).warnings == ()


def test_oci_flags_and_listener_are_told_to_do_nothing() -> None:
    warnings = load(flags=["SECCOMP_FILTER_FLAG_LOG"], listenerPath="/run/x").warnings
    assert ["FLAG_LOG" in warnings[0], "listenerPath" in warnings[1]] == [True, True]


@pytest.mark.parametrize(
    ("syscall", "key", "why"),
    [
        (allow("read", acton=1), "acton", "did you mean 'action'"),
        (allow(), "names", "missing or empty"),
        (allow("read", name="write"), "name", "beside names"),
        ({"names": ["read"]}, "action", "is missing"),
        ({"names": ["read"], "action": "SCMP_ACT_ALOW"}, "action", "did you mean 'SCMP_ACT_ALLOW'"),
        ({"names": "read", "action": ALLOW}, "names", "must be a list"),
        (allow(7), "names", "list of strings"),  # type: ignore[arg-type]
        ({"names": ["read"], "action": ERRNO, "errnoRet": 4096}, "errnoRet", "0 to 4095"),
        ({"names": ["read"], "action": ERRNO, "errnoRet": True}, "errnoRet", "whole number"),
        ({"names": ["read"], "action": ERRNO, "errno": "EPREM"}, "errno", "did you mean 'EPERM'"),
        ({"names": ["read"], "action": ERRNO, "errno": "EPERM", "errnoRet": 2}, "errno", "keep one"),
        (allow("read", args=[arg(6, "EQ", 1)]), "index", "0 to 5"),
        (allow("read", args=[arg(0, "EQ", -1)]), "value", "whole number"),
        (allow("read", args=[arg(1, "EQ", 1 << 64)]), "value", "whole number"),
        (allow("read", args=[arg(1, "XX", 1)]), "op", "is none of"),
        (allow("read", args=[{"index": 0, "op": "SCMP_CMP_EQ"}]), "value", "is missing"),
        (allow("socket", args=[arg(0, "EQ", 40 | 1 << 32)]), "value", "does not fit"),
        (allow("socket", args=[arg(0, "MASKED_EQ", 1, 2)]), "valueTwo", "never matches"),
        (allow("socket", args=[arg(0, "MASKED_EQ", 1 << 32, 1 << 32)]), "valueTwo", "does not look at"),
        (allow("read", includes={"caps": ["SYS_ADMIN"]}), "caps", "no capability"),
        (allow("read", includes={"arches": ["x86_64"]}), "arches", "no architecture"),
        (allow("read", excludes={"minKernel": "6"}), "minKernel", "no version"),
        (allow("read", includes={"cap": []}), "cap", "did you mean 'caps'"),
    ],
)
def test_oci_refuses_a_wrong_entry(syscall: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(InvalidParams, match=why) as raised:
        load(syscall)
    assert raised.value.details["key"] == key
    assert raised.value.details["file"] == "f.json"
    assert raised.value.details["line"] > 1


@pytest.mark.parametrize(
    ("top", "why"),
    [
        ({"defaultActon": 1}, "did you mean 'defaultAction'"),
        ({"syscalls": {}}, "must be a list"),
        ({"architectures": ["SCMP_ARCH_X86_64"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}, "keep one"),
        ({"architectures": ["X86_64"]}, "no architecture"),
        ({"flags": ["LOG"]}, "no flag"),
        ({"defaultAction": None}, "is missing"),
    ],
)
def test_oci_refuses_a_wrong_file(top: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidParams, match=why):
        load(**top)


def test_oci_refuses_a_key_that_stands_twice() -> None:
    with pytest.raises(InvalidParams, match="stands here and on line 1"):
        load_oci(
            b'{"defaultAction": "SCMP_ACT_ALLOW",\n"defaultAction": "SCMP_ACT_ERRNO"}',
            name="f",
            arch=Arch.X86_64,
            kernel=(6, 1),
        )
