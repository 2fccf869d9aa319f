"""The helper that holds libseccomp: over a binding that only remembers, and over the real one where it is installed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from coworkd.system import libseccomp
from coworkd.system.libseccomp import LibseccompError, LoweredRule, RuleList, compile_rules, load_binding


class Filter:
    """Remembers what it was told."""

    def __init__(self, default: int, told: list[tuple[Any, ...]]) -> None:
        self.told = told
        told.append(("default", default))

    def __getattr__(self, verb: str) -> Any:
        return lambda *args: self.told.append((verb, *args))

    def export_bpf(self, output: Any) -> None:
        output.write(b"program")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    binding = SimpleNamespace(
        SyscallFilter=lambda default: Filter(default, found),
        Arch=SimpleNamespace(NATIVE="native", X86_64="x86_64", AARCH64="aarch64"),
        Attr=SimpleNamespace(ACT_BADARCH="badarch", CTL_OPTIMIZE="optimize"),
        Arg=lambda *parts: parts,
        ERRNO=lambda number: 0x5_0000 | number,
        ALLOW=0x7FFF_0000,
        KILL_PROCESS=0x8000_0000,
        MASKED_EQ=7,
        resolve_syscall=lambda _, name: {"socket": 41}.get(name, -1),
    )
    monkeypatch.setattr(libseccomp, "load_binding", lambda: binding)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    return found


def asked(arch: str, name: str, number: int) -> RuleList:
    rule = LoweredRule(name=name, number=number, action=("errno", 97), args=((0, "masked_eq", 0xFFFF_FFFF, 40),))
    return RuleList(arch=arch, default=("allow", 0), rules=(rule,))


def test_compile_sets_attributes_before_rules(told: list[tuple[Any, ...]]) -> None:
    output = io.BytesIO()
    compile_rules(asked("x86_64", "new_call", 469), output)
    assert told == [
        ("default", 0x7FFF_0000),
        ("set_attr", "badarch", 0x8000_0000),
        ("set_attr", "optimize", 2),
        ("add_rule", 0x5_0061, 469, (0, 7, 0xFFFF_FFFF, 40)),
    ]
    assert output.getvalue() == b"program"


def test_compile_for_another_architecture_swaps_it_in_and_translates(told: list[tuple[Any, ...]]) -> None:
    compile_rules(asked("aarch64", "socket", 198), io.BytesIO())
    assert told[1:3] == [("add_arch", "aarch64"), ("remove_arch", "native")]
    assert told[-1][:3] == ("add_rule", 0x5_0061, 41)


def test_compile_refuses_a_name_it_cannot_translate(told: list[tuple[Any, ...]]) -> None:
    with pytest.raises(LibseccompError, match="does not know file_setattr"):
        compile_rules(asked("aarch64", "file_setattr", 469), io.BytesIO())
    assert [entry for entry in told if entry[0] == "add_rule"] == []


def test_load_binding_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "_BINDINGS", ("no_such_binding",))
    with pytest.raises(LibseccompError, match="install python3-seccomp"):
        load_binding()


def test_helper_process_says_what_is_wrong_with_its_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coworkd.system.libseccomp"], input=b'{"arch": 1}', capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"arch" in done.stderr


def test_helper_process_compiles() -> None:
    request = {"arch": os.uname().machine, "default": ["allow", 0], "rules": []}
    done = subprocess.run(
        [sys.executable, "-m", "coworkd.system.libseccomp"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) > 0
    assert len(done.stdout) % 8 == 0
