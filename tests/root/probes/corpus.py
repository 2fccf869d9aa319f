"""The corpus as the test reads it: what stands in syscalls.toml and programs.toml, typed, for this architecture. Runs outside."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from coworkd.seccomp import host_arch
from coworkd.seccomp.numbers import Arch, numbers

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
PACKAGE = Path("tests/root/probes")
"""Where the runner expects to find itself below the folder it is given in."""


class SyscallProbe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of syscalls.toml; its head says what each key means."""

    id: str
    attempts: str
    call: str
    arguments: list[int | str | list[int]]
    expect: list[str]
    strict: list[str] | None = None
    arch: Arch | None = None
    prepare: bool = False
    number_or: int = 0

    def asked(self) -> dict[str, Any]:
        """What the runner is told."""
        return {
            "id": self.id,
            "call": self.call,
            "number": numbers(host_arch())[self.call],
            "number_or": self.number_or,
            "arguments": self.arguments,
            "prepare": self.prepare,
        }


class ProgramProbe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of programs.toml."""

    id: str
    attempts: str
    expect: list[str]
    strict: list[str] | None = None
    arch: Arch | None = None
    where: str = "default"


def load_syscalls() -> list[SyscallProbe]:
    """Those this architecture has."""
    table = tomllib.loads((HERE / "syscalls.toml").read_text())
    found = msgspec.convert(table["probe"], list[SyscallProbe])
    return [entry for entry in found if entry.arch in (None, host_arch())]


def load_programs() -> list[ProgramProbe]:
    """Those that mean something on this architecture."""
    table = tomllib.loads((HERE / "programs.toml").read_text())
    found = msgspec.convert(table["probe"], list[ProgramProbe])
    return [entry for entry in found if entry.arch in (None, host_arch())]


def copy_to(folder: Path) -> None:
    """Put the probes into `folder`, in the package they import each other by."""
    shutil.copytree(HERE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "corpus.py"))
