"""cgroup v2: what one may have, and what it takes.

Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from coworkd.model.limits import CgroupLimits, GroupUsage
from coworkd.system import cgroup

_PERIOD_US = 100_000


def limit(directory: str, limits: CgroupLimits) -> None:
    """Set what `limits` says, and leave the rest. Absent controllers are passed over.

    memory.max comes last: where it is below what is used, the kernel has taken it and takes memory back before the write returns.
    Raises `OSError`.
    """
    for name, value in _compose(limits):
        with contextlib.suppress(FileNotFoundError):
            cgroup.write(f"{directory}/{name}", value)


def _compose(limits: CgroupLimits) -> Iterator[tuple[str, str]]:
    """File and value, in the order of writing."""
    if limits.pids_max is not None:
        yield "pids.max", str(limits.pids_max)
    if limits.cpu_max is not None:
        yield "cpu.max", f"{int(limits.cpu_max * _PERIOD_US)} {_PERIOD_US}"
    if limits.cpu_weight is not None:
        yield "cpu.weight", str(limits.cpu_weight)
    if limits.io_weight is not None:
        yield "io.weight", f"default {limits.io_weight}"
    if limits.swap_max_bytes is not None:
        yield "memory.swap.max", str(limits.swap_max_bytes)
    if limits.memory_high_bytes is not None:
        yield "memory.high", str(limits.memory_high_bytes)
    if limits.memory_max_bytes is not None:
        yield "memory.max", str(limits.memory_max_bytes)


def read_limits(directory: str) -> CgroupLimits:
    """What the kernel holds it to; None for `max`, and for a controller that is not there."""
    quota, _, period = cgroup.read_text(directory, "cpu.max").partition(" ")
    weight = cgroup.read_text(directory, "io.weight").splitlines()
    return CgroupLimits(
        memory_max_bytes=cgroup.number(directory, "memory.max"),
        memory_high_bytes=cgroup.number(directory, "memory.high"),
        swap_max_bytes=cgroup.number(directory, "memory.swap.max"),
        pids_max=cgroup.number(directory, "pids.max"),
        cpu_max=int(quota) / int(period) if quota.isdecimal() else None,
        cpu_weight=cgroup.number(directory, "cpu.weight"),
        io_weight=int(weight[0].removeprefix("default ")) if weight and weight[0].startswith("default ") else None,
    )


def measure(directory: str) -> GroupUsage:
    """What it takes. Raises `FileNotFoundError` where there is no such cgroup."""
    os.stat(directory)
    times = cgroup.events(directory, "cpu.stat")
    read, written = _sum_io(cgroup.read_text(directory, "io.stat"))
    return GroupUsage(
        memory_bytes=cgroup.number(directory, "memory.current"),
        memory_peak_bytes=cgroup.number(directory, "memory.peak"),
        swap_bytes=cgroup.number(directory, "memory.swap.current"),
        pids=cgroup.number(directory, "pids.current"),
        cpu_user_s=_seconds(times, "user_usec"),
        cpu_system_s=_seconds(times, "system_usec"),
        throttled_s=_seconds(times, "throttled_usec"),
        read_bytes=read,
        written_bytes=written,
        oom_kills=cgroup.events(directory, "memory.events").get("oom_kill"),
        pids_refused=cgroup.events(directory, "pids.events").get("max"),
    )


def _seconds(times: dict[str, int], name: str) -> float | None:
    return times[name] / 1_000_000 if name in times else None


def _sum_io(text: str) -> tuple[int | None, int | None]:
    """Over all devices, from `8:0 rbytes=1 wbytes=2 …` lines; None for both where the io controller is not there."""
    words = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
    if not words:
        return None, None
    read, written = (sum(int(value) for name, _, value in words if name == wanted) for wanted in ("rbytes", "wbytes"))
    return read, written
