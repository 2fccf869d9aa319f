"""What all sessions together may have of the guest: its memory less what coworkd and the system need, so that the kernel's OOM killer finds
a session's command, and never has to look for one of the guest's own.

The reserve is a tenth of the memory and at least 256 MiB, but never more than half of a small guest. Processors and disks go first to
who serves the sessions: weights, which bind only where somebody wants more than there is.
"""

from __future__ import annotations

import os

from coworkd.model.limits import CgroupLimits
from coworkd.system import cgroup, cgroup_limits

RESERVE_SHARE = 10
RESERVE_BYTES = 256 * 1024 * 1024
OWN_MIN_BYTES = 48 * 1024 * 1024
"""Of the launcher's unit's MemoryMin, which would else be divided among all below it (memory_recursiveprot)."""
OWN_WEIGHT, SESSIONS_WEIGHT = 10_000, 100


def sessions_max(total_bytes: int) -> int:
    """How much of a guest with so much memory all sessions may have."""
    reserve = max(total_bytes // RESERVE_SHARE, RESERVE_BYTES)
    return total_bytes - min(reserve, total_bytes // 2)


def bound(cgroup_root: str, total_bytes: int) -> None:
    """Hold the sessions' cgroup to it, and put the launcher's own leaf, where there is one beside it, before them. Raises `OSError`."""
    limits = CgroupLimits(
        memory_max_bytes=sessions_max(total_bytes), cpu_weight=SESSIONS_WEIGHT, io_weight=SESSIONS_WEIGHT
    )
    cgroup_limits.limit(cgroup_root, limits)
    beside = os.path.join(os.path.dirname(cgroup_root), cgroup.SUPERVISOR)
    if os.path.basename(cgroup_root) == cgroup.SESSIONS and os.path.isdir(beside):
        cgroup_limits.limit(beside, CgroupLimits(cpu_weight=OWN_WEIGHT, io_weight=OWN_WEIGHT))
        cgroup.protect(beside, OWN_MIN_BYTES)


def total_memory() -> int:
    """The guest's memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
