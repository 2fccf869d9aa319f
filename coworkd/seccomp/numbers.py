"""Architectures and syscall numbers.

Rules: only x86_64 and aarch64 can be filtered for; everything else a 64-bit kernel can be asked in (i386, arm, x32)
is foreign. A name resolves by our own table, never by libseccomp's, which does not know the newest.

Sources: `linux/audit.h` (AUDIT_ARCH_*), `asm/unistd.h` (`__X32_SYSCALL_BIT`), seccomp(2).
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from enum import Enum
from functools import cache

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.syscall_tables import AARCH64, OTHER_ARCHES, SHARED, X86_64

X32_BIT = 0x4000_0000
"""Set in the number of a call made through the x32 ABI; its AUDIT_ARCH is that of x86_64."""
NO_SYSCALL = 0xFFFF_FFFF
"""-1: what a tracer writes to skip a call. It has the x32 bit set without being one."""

_64BIT, _LITTLE_ENDIAN = 0x8000_0000, 0x4000_0000
AUDIT_ARCH_X86_64 = 62 | _64BIT | _LITTLE_ENDIAN
AUDIT_ARCH_I386 = 3 | _LITTLE_ENDIAN
AUDIT_ARCH_AARCH64 = 183 | _64BIT | _LITTLE_ENDIAN
AUDIT_ARCH_ARM = 40 | _LITTLE_ENDIAN

FOREIGN_AUDIT_ARCHES = (AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0, 0xFFFF_FFFF, 62, 183, 243 | _64BIT | _LITTLE_ENDIAN)
"""What a check tries besides the other one of our two: the 32-bit siblings, nonsense, RISC-V."""


class Arch(str, Enum):
    """An architecture a filter can be made for, by the kernel's own word for it (`uname -m`)."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @property
    def audit(self) -> int:
        """What the kernel puts into `seccomp_data.arch`."""
        return AUDIT_ARCH_X86_64 if self is Arch.X86_64 else AUDIT_ARCH_AARCH64

    @property
    def has_x32(self) -> bool:
        """Whether numbers with `X32_BIT` are an ABI of their own here."""
        return self is Arch.X86_64


def host_arch() -> Arch:
    """The architecture of the running kernel; raises `InvalidParams` on one no filter can be made for."""
    machine = os.uname().machine
    try:
        return Arch(machine)
    except ValueError:
        raise InvalidParams(
            f"no seccomp filter can be made for {machine}: only x86_64 and aarch64", key="arch"
        ) from None


def host_kernel() -> tuple[int, int]:
    """Major and minor of the running kernel, for `minKernel`."""
    major, minor = os.uname().release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return int(major), int(digits)


@cache
def numbers(arch: Arch) -> dict[str, int]:
    """Name → number of every syscall of `arch`."""
    runs = (X86_64 if arch is Arch.X86_64 else AARCH64) + SHARED
    return {name: first + offset for first, names in runs for offset, name in enumerate(names.split())}


@cache
def names(arch: Arch) -> dict[int, str]:
    """Number → name, the other way round."""
    return {number: name for name, number in numbers(arch).items()}


@cache
def _elsewhere() -> frozenset[str]:
    return frozenset(OTHER_ARCHES.split()).union(*(numbers(arch) for arch in Arch))


def exists_elsewhere(name: str) -> bool:
    """Whether `name` is a syscall of some architecture, ours or another."""
    return name in _elsewhere()


def nearest(name: str, arch: Arch) -> str | None:
    """The right spelling most like `name`, if any is."""
    found = get_close_matches(name, numbers(arch), n=1)
    return found[0] if found else None
