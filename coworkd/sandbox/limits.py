"""What holds for a session and for one of its commands, in the words of cgroup v2 and rlimits. Pure.

Rules
- A command has limits of its own only where they are narrower than its session's: the kernel keeps it to those of all groups above, and a
  session whose limit is raised later raises it for those that never had one.
- memory.high stands below memory.max: a wish that does not is met by a sixteenth below.
"""

from __future__ import annotations

from coworkd.model.limits import CgroupLimits, Rlimits
from coworkd.model.policy import LimitsPolicy, LimitsRequest

KERNEL_NAMES = {
    **{name: f"{name}_bytes" for name in ("memory_max", "memory_high", "swap_max")},
    **{name: name for name in ("pids_max", "cpu_max", "cpu_weight", "io_weight")},
}
"""The limits that cgroup v2 keeps, as they are asked for → as `CgroupLimits` names them."""
_HIGH_SHARE = 16


def session_limits(limits: LimitsPolicy) -> CgroupLimits:
    """Of all commands of a session together, with who serves its folders and files."""
    return CgroupLimits(
        memory_max_bytes=limits.memory_max_bytes,
        memory_high_bytes=min(limits.memory_high_bytes, _below(limits.memory_max_bytes)),
        swap_max_bytes=limits.swap_max_bytes,
        pids_max=limits.pids_max,
        cpu_max=limits.cpu_max,
        cpu_weight=limits.cpu_weight,
        io_weight=limits.io_weight,
    )


def process_limits(own: LimitsPolicy, session: LimitsPolicy | None) -> CgroupLimits:
    """Of one command; all of them where it is not known what its session has."""
    wanted = session_limits(own)
    if session is None:
        return wanted
    held = session_limits(session)
    kept = {
        name: getattr(wanted, name)
        for name in CgroupLimits.__struct_fields__
        if getattr(wanted, name) < getattr(held, name)
    }
    return CgroupLimits(**kept)


def rlimits(limits: LimitsPolicy) -> Rlimits:
    """Of every process of a command."""
    return Rlimits(
        nofile=limits.nofile,
        nproc=limits.pids_max,
        core_bytes=limits.core_max_bytes,
        fsize_bytes=limits.fsize_max_bytes or None,
        cpu_s=limits.cpu_time_s or None,
    )


def warn_below_use(used_bytes: int | None, allowed_bytes: int | None) -> tuple[str, ...]:
    """What comes of a memory limit below what is used; None of a number: not known, or not changed."""
    if used_bytes is None or allowed_bytes is None or used_bytes <= allowed_bytes:
        return ()
    return (
        f"{used_bytes} bytes of memory are used, {allowed_bytes} may be from now on: the kernel takes memory back, and kills what it"
        " cannot do without",
    )


def warn_not_kept(asked: LimitsRequest, held: CgroupLimits) -> tuple[str, ...]:
    """What was asked for and the kernel does not hold anybody to, for want of a controller."""
    lacking = [
        name
        for name, kernel_name in KERNEL_NAMES.items()
        if getattr(asked, name) is not None and getattr(held, kernel_name) is None
    ]
    if not lacking:
        return ()
    return (
        f"{', '.join(lacking)}: this kernel's cgroup v2 keeps nobody to that, for want of a controller;"
        " coworkctl doctor says which and how to mend it",
    )


def _below(limit_bytes: int) -> int:
    return limit_bytes - limit_bytes // _HIGH_SHARE
