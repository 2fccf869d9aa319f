"""libseccomp, in a process of its own: `python -m coworkd.system.libseccomp` compiles one rule list and exits.

Rules
- Nothing imports the binding but `compile_rules`, which only the helper process calls: the binding loads a C library, runs ldconfig
  (pyseccomp) and can crash; the resident process never does.
- stdin: one JSON object `{"arch", "default", "rules"}` (`RuleList`). stdout: the program and nothing else. Exit 1 with
  one line on stderr says what libseccomp refused; nothing is on stdout then.
- A foreign architecture is KILL_PROCESS, and the search over numbers is a binary tree (CTL_OPTIMIZE 2).
- A name libseccomp does not know is refused: it would become the rule of syscall -1 in silence.

Does not judge what libseccomp made; `coworkd.seccomp.check` does. Sources: seccomp_init(3), seccomp_rule_add(3), seccomp_attr_set(3).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from coworkd.model.errors import UNDECODABLE


class LibseccompError(OSError):
    """libseccomp is missing, too old, or refused a rule; the text says which."""


class LoweredRule(Struct, frozen=True, kw_only=True):
    """One rule. `args` are (index, op, a, b): `masked_eq` has the mask in `a` and the value in `b`, all others compare with `a`."""

    name: str
    number: int
    action: tuple[str, int]
    args: tuple[tuple[int, str, int, int], ...]


class RuleList(Struct, frozen=True, kw_only=True):
    """What the helper is asked to compile."""

    arch: str
    default: tuple[str, int]
    rules: tuple[LoweredRule, ...]


_BINDINGS = ("seccomp", "pyseccomp")
_ACTIONS = {"kill_process": "KILL_PROCESS", "kill_thread": "KILL", "trap": "TRAP", "log": "LOG", "allow": "ALLOW"}
_OPTIMIZE_BINARY_TREE = 2


def load_binding() -> Any:
    """The library's own binding where it is installed, else pyseccomp; raises `LibseccompError`."""
    for name in _BINDINGS:
        try:
            return importlib.import_module(name)
        except (ImportError, RuntimeError, OSError):
            continue
    raise LibseccompError("no libseccomp binding: install python3-seccomp, or pyseccomp and libseccomp2")


def compile_rules(asked: RuleList, output: BinaryIO) -> None:
    """Compile and write the program to `output`, which needs a descriptor; raises `LibseccompError`."""
    binding = load_binding()
    native = os.uname().machine == asked.arch
    try:
        built = binding.SyscallFilter(_action(binding, asked.default))
        wanted = getattr(binding.Arch, asked.arch.upper())
        if not native:
            # A new filter holds the native architecture; it must go, and the wanted one come, before any rule.
            built.add_arch(wanted)
            built.remove_arch(binding.Arch.NATIVE)
        built.set_attr(binding.Attr.ACT_BADARCH, binding.KILL_PROCESS)
        built.set_attr(binding.Attr.CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
        for rule in asked.rules:
            _add_rule(binding, built, rule, native=native)
        built.export_bpf(output)
    except LibseccompError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise LibseccompError(f"libseccomp: {error}") from error


def _action(binding: Any, action: tuple[str, int]) -> int:
    kind, errno = action
    value = binding.ERRNO(errno) if kind == "errno" else getattr(binding, _ACTIONS[kind])
    return int(value)


def _add_rule(binding: Any, built: Any, rule: LoweredRule, *, native: bool) -> None:
    """libseccomp wants the number that the *native* architecture has for the call, whichever it compiles for."""
    number = rule.number
    if not native:
        number = int(binding.resolve_syscall(binding.Arch.NATIVE, rule.name))
        if number < 0:
            raise LibseccompError(f"libseccomp does not know {rule.name} and cannot translate it between architectures")
    args = [binding.Arg(index, getattr(binding, op.upper()), a, b) for index, op, a, b in rule.args]
    try:
        built.add_rule(_action(binding, rule.action), number, *args)
    except (OSError, RuntimeError) as error:
        raise LibseccompError(f"libseccomp refused a rule for {rule.name}: {error}") from error


def main() -> int:
    """The helper process."""
    try:
        asked = msgspec.json.decode(sys.stdin.buffer.read(), type=RuleList)
        compile_rules(asked, sys.stdout.buffer)
    except (LibseccompError, *UNDECODABLE) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
