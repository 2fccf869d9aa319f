"""Compilation: libseccomp first, our own where it cannot, the cache, and never an unchecked program."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.errors import InternalError
from coworkd.seccomp import compile as compiling
from coworkd.seccomp.base_filter import load_base
from coworkd.seccomp.check import check_program
from coworkd.seccomp.compile import cache_key, compile_program, compile_ruleset, library_identity
from coworkd.seccomp.interpreter import RET_K, encode_program
from coworkd.seccomp.numbers import Arch
from coworkd.seccomp.rules import ALLOW, INT_MASK, Action, Condition, Kind, Op, Rule, RuleSet

EPERM = Action(Kind.ERRNO, 1)
SMALL = RuleSet(
    source="small", arch=Arch.X86_64, default=ALLOW,
    rules=(Rule(syscall="socket", number=41, action=EPERM, conditions=(Condition(0, Op.EQ, 40, INT_MASK),)),),
)  # fmt: skip
LETS_ALL_PASS = encode_program([(RET_K, 0, 0, ALLOW.return_value)])


class Helper:
    """Stands for the libseccomp helper process; counts how often it was run."""

    def __init__(self, returncode: int = 0, stdout: bytes = LETS_ALL_PASS, stderr: bytes = b"") -> None:
        self.runs = 0
        self._done: subprocess.CompletedProcess[bytes] = subprocess.CompletedProcess([], returncode, stdout, stderr)

    def __call__(self, argv: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert argv == [sys.executable, "-B", "-m", "coworkd.system.libseccomp"]
        self.runs += 1
        return self._done


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Helper:
    """A libseccomp whose program lets everything pass."""
    helper = Helper()
    monkeypatch.setattr(subprocess, "run", helper)
    return helper


@pytest.mark.parametrize("arch", list(Arch))
def test_compile_gives_a_checked_program(arch: Arch) -> None:
    ruleset = RuleSet(source="small", arch=arch, default=ALLOW, rules=(Rule(syscall="bpf", number=321, action=EPERM),))
    program = compile_program(ruleset, cache_dir=None)
    check_program(ruleset, program.bpf)
    assert program.sha256 == sha256(program.bpf).hexdigest()
    assert program.source == "small"


def test_compile_does_not_use_a_program_of_libseccomp_that_is_wrong(lying: Helper) -> None:
    made = compile_ruleset(SMALL, cache_dir=None)
    assert lying.runs == 1
    assert made.compiler == "coworkd"
    assert "it is not used" in made.remark
    check_program(SMALL, made.program.bpf)


@pytest.mark.parametrize(
    ("helper", "remark"),
    [
        (Helper(returncode=1, stdout=b"", stderr=b"no libseccomp binding\n"), "no libseccomp binding"),
        (Helper(returncode=-11, stdout=b""), "ended with -11"),
        (Helper(stdout=b"rubbish!"), "made no program"),
    ],
)
def test_compile_goes_on_without_libseccomp(monkeypatch: pytest.MonkeyPatch, helper: Helper, remark: str) -> None:
    monkeypatch.setattr(subprocess, "run", helper)
    made = compile_ruleset(SMALL, cache_dir=None)
    assert made.compiler == "coworkd"
    assert remark in made.remark


def test_compile_gives_nothing_where_no_program_passes(lying: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "generate_program", lambda _: [(RET_K, 0, 0, ALLOW.return_value)])
    with pytest.raises(InternalError, match="it is not used"):
        compile_ruleset(SMALL, cache_dir=None)


def test_compile_takes_from_the_cache_what_it_put_there(lying: Helper, tmp_path: Path) -> None:
    first = compile_ruleset(SMALL, cache_dir=tmp_path / "cache")
    second = compile_ruleset(SMALL, cache_dir=tmp_path / "cache")
    assert (first.cached, second.cached, lying.runs) == (False, True, 1)
    assert second.program == first.program


def test_compile_does_not_use_a_tampered_entry(lying: Helper, tmp_path: Path) -> None:
    compile_ruleset(SMALL, cache_dir=tmp_path)
    (entry,) = tmp_path.glob("*.seccomp")
    entry.write_bytes(entry.read_bytes().replace(b"\x05\x00", b"\xff\x7f"))
    again = compile_ruleset(SMALL, cache_dir=tmp_path)
    assert not again.cached
    check_program(SMALL, again.program.bpf)


def test_cache_key_changes_with_whatever_decides_the_program() -> None:
    other_reason = RuleSet(source="x", arch=SMALL.arch, default=ALLOW, rules=SMALL.rules, warnings=("w",))
    assert cache_key(other_reason, "lib") == cache_key(SMALL, "lib")
    others = [
        cache_key(SMALL, "other"),
        cache_key(RuleSet(source="s", arch=Arch.AARCH64, default=ALLOW, rules=SMALL.rules), "lib"),
        cache_key(RuleSet(source="s", arch=SMALL.arch, default=EPERM, rules=SMALL.rules), "lib"),
        cache_key(RuleSet(source="s", arch=SMALL.arch, default=ALLOW, rules=()), "lib"),
    ]
    assert len({cache_key(SMALL, "lib"), *others}) == 5


def test_library_identity_is_told_without_loading_it() -> None:
    assert library_identity()
    code = "import sys, coworkd.seccomp as s; s.compile.library_identity(); print({'ctypes', 'seccomp', 'pyseccomp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_compile_base_filter_for_the_other_architecture() -> None:
    made = compile_ruleset(load_base("dev", Arch.AARCH64), cache_dir=None)
    check_program(load_base("dev", Arch.AARCH64), made.program.bpf)
