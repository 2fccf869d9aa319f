"""From a rule set to a program that was checked.

libseccomp compiles in a short-lived process of its own (`python -m coworkd.system.libseccomp`: started by name, since rooms of one
floor do not import each other). What it cannot say, refuses, or compiles to something else than the rules, our own `generate`
compiles instead; `Compilation.remark` tells why. Whatever made it, a program is compared with its rules
by `check` before anyone gets it; if none passes, `InternalError`: no filter, no spawn.

Blocking: up to a second where nothing is cached; callers run it in a thread. Starts a child process, waits for it, leaves
nothing behind.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

import coworkd
from coworkd.model.errors import InternalError
from coworkd.model.policy import SeccompProgram
from coworkd.seccomp import program_cache
from coworkd.seccomp.check import check_program
from coworkd.seccomp.generate import TooLong, generate_program
from coworkd.seccomp.interpreter import (
    JEQ,
    JGE,
    LD_ABS,
    MAX_INSTRUCTIONS,
    RET_K,
    Instruction,
    ProgramError,
    decode_program,
    encode_program,
)
from coworkd.seccomp.lower import Inexpressible, lower_ruleset
from coworkd.seccomp.numbers import NO_SYSCALL, X32_BIT, Arch
from coworkd.seccomp.rules import X32, RuleSet

VERSION = 1
"""Part of the cache's key: raised when the meaning of rules or the making of programs changes."""

HELPER_TIMEOUT_S = 20.0
_PACKAGE_ROOT = Path(coworkd.__file__).resolve().parent.parent
_LIBRARY_PLACES = ("/usr/lib/*/libseccomp.so.2", "/usr/lib64/libseccomp.so.2", "/usr/lib/libseccomp.so.2")


class Compilation(Struct, frozen=True, kw_only=True):
    """A checked program and how it came about: `compiler` is `libseccomp` or `coworkd`, `remark` why not the first."""

    program: SeccompProgram
    compiler: str
    remark: str
    cached: bool


class _HelperFailed(Exception):
    """libseccomp or its helper process could not do it; the text says why."""


def compile_program(ruleset: RuleSet, *, cache_dir: Path | None) -> SeccompProgram:
    """A checked program for `ruleset`, from the cache if it is there; raises `InternalError` where none passes the check.

    `cache_dir` is made if it is missing; a cache that cannot be read or written costs time and nothing else.
    """
    return compile_ruleset(ruleset, cache_dir=cache_dir).program


def compile_ruleset(ruleset: RuleSet, *, cache_dir: Path | None, library: str | None = None) -> Compilation:
    """Like `compile_program`, and tells how. `library` is another machine's `library_identity`, for a cache that is to be that one's."""
    key = cache_key(ruleset, library_identity() if library is None else library)
    if cache_dir is not None:
        kept = program_cache.load_entry(cache_dir, key)
        if kept is not None:
            return _compilation(ruleset, kept.bpf, kept.compiler, kept.remark, cached=True)
    bpf, compiler, remark = _compile(ruleset)
    if cache_dir is not None:
        program_cache.store_entry(cache_dir, key, program_cache.Entry(bpf=bpf, compiler=compiler, remark=remark))
    return _compilation(ruleset, bpf, compiler, remark, cached=False)


def _compilation(ruleset: RuleSet, bpf: bytes, compiler: str, remark: str, *, cached: bool) -> Compilation:
    program = SeccompProgram(sha256=sha256(bpf).hexdigest(), bpf=bpf, source=ruleset.source)
    return Compilation(program=program, compiler=compiler, remark=remark, cached=cached)


def cache_key(ruleset: RuleSet, library: str) -> str:
    """SHA-256 in hex of all that decides what a program is: the rules (not their names or reasons), the makers' versions."""
    rules = [(rule.number, rule.action, rule.conditions) for rule in ruleset.rules]
    canonical = msgspec.json.encode((VERSION, library, ruleset.arch, ruleset.default, rules))
    return sha256(canonical).hexdigest()


def library_identity() -> str:
    """Which libseccomp is installed, without loading it: the real name of its file (it ends in its version), size and time."""
    for pattern in _LIBRARY_PLACES:
        for found in sorted(glob.glob(pattern)):
            real = os.path.realpath(found)
            try:
                status = os.stat(real)
            except FileNotFoundError:
                continue
            return identify_library(real, status.st_size, status.st_mtime_ns)
    return "none"


def identify_library(path: str, size: int, mtime_ns: int) -> str:
    """What `library_identity` says of such a file."""
    return f"{path} {size} {mtime_ns}"


def _compile(ruleset: RuleSet) -> tuple[bytes, str, str]:
    try:
        bpf = _by_libseccomp(ruleset)
        check_program(ruleset, bpf)
    except (Inexpressible, _HelperFailed, InternalError) as error:
        remark = str(error)
    else:
        return bpf, "libseccomp", ""
    try:
        bpf = encode_program(generate_program(ruleset))
    except TooLong as error:
        raise InternalError(str(error), stage="seccomp") from error
    check_program(ruleset, bpf)
    return bpf, "coworkd", remark


def _by_libseccomp(ruleset: RuleSet) -> bytes:
    asked = {
        "arch": ruleset.arch.value,
        "default": (ruleset.default.kind.value, ruleset.default.errno),
        "rules": lower_ruleset(ruleset),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "coworkd.system.libseccomp"],
            input=msgspec.json.encode(asked),
            capture_output=True,
            cwd=_PACKAGE_ROOT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            timeout=HELPER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _HelperFailed(f"the libseccomp helper did not run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _HelperFailed(said[-1] if said else f"the libseccomp helper ended with {done.returncode}")
    try:
        program = decode_program(done.stdout)
    except ProgramError as error:
        raise _HelperFailed(f"libseccomp made no program: {error}") from error
    return encode_program(_refuse_x32(ruleset.arch, program))


def _refuse_x32(arch: Arch, program: list[Instruction]) -> list[Instruction]:
    """Put our answer to x32 before libseccomp's own, which could only be that to any foreign architecture.

    Jumps are relative and go forward, so a program stays what it is behind others.
    """
    if not arch.has_x32:
        return program
    first = [
        (LD_ABS, 0, 0, 4),
        (JEQ, 0, 4, arch.audit),
        (LD_ABS, 0, 0, 0),
        (JGE, 0, 2, X32_BIT),
        (JEQ, 1, 0, NO_SYSCALL),
        (RET_K, 0, 0, X32.return_value),
    ]
    if len(first) + len(program) > MAX_INSTRUCTIONS:
        raise _HelperFailed(f"libseccomp's program has {len(program)} instructions")
    return first + program
