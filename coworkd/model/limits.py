"""What one cgroup, and one process, may have: the words for cgroup v2 and for rlimits between coworkd and its launcher.

None everywhere means: nothing of its own, what is above holds. Sizes are bytes, `cpu_max` is in CPUs, weights are the kernel's (1 to
10,000, 100 where nobody says). Sources: Documentation/admin-guide/cgroup-v2.rst, getrlimit(2).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

LimitScope = Literal["process", "session", "guest"]
"""Whose limit was reached: the command's own, its session's, or that of all sessions together."""
PressureKind = Literal["memory", "cpu", "io"]
PRESSURE_KINDS: tuple[PressureKind, ...] = ("memory", "cpu", "io")


class CgroupLimits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one cgroup and all below it."""

    memory_max_bytes: int | None = None
    memory_high_bytes: int | None = None
    swap_max_bytes: int | None = None
    pids_max: int | None = None
    cpu_max: float | None = None
    cpu_weight: int | None = None
    io_weight: int | None = None


class Rlimits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of each process of a command. `nproc` holds only where no cgroup counts processes."""

    nofile: int
    nproc: int
    core_bytes: int = 0
    fsize_bytes: int | None = None
    cpu_s: int | None = None


class Oom(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the kernel's OOM killer came to a command. None of a number: the kernel did not tell."""

    scope: LimitScope
    limit_bytes: int | None = None
    peak_bytes: int | None = None


class GroupUsage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one cgroup takes, and has taken. None: this kernel does not count it there."""

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    throttled_s: float | None = None
    """For how long it was held back by its `cpu_max`."""
    read_bytes: int | None = None
    written_bytes: int | None = None
    oom_kills: int | None = None
    pids_refused: int | None = None
    """How often a process was refused for `pids_max`; which cgroup counts it depends on the kernel (from 6.12 on: whose limit it was)."""
