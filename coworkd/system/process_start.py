"""When this process was started by the kernel. Source: proc_pid_stat(5), field 22 (starttime), in clock ticks since the start."""

from __future__ import annotations

import os


def read_start_s(pid: int | str = "self") -> float:
    """Seconds since the kernel's start, to a clock tick (10 ms). Raises `OSError`."""
    with open(f"/proc/{pid}/stat") as stat:
        return parse_start_ticks(stat.read()) / os.sysconf("SC_CLK_TCK")


def parse_start_ticks(text: str) -> int:
    """Field 22; the second, a name in brackets, may hold anything."""
    return int(text.rpartition(")")[2].split()[19])
