"""What a shim had used before it had a command, and what is left for the command of what its sandbox has used in all.

CPU, faults and switches are counted from a process's beginning, whatever it executes; so they are taken off. The largest resident set
is not a sum: below the shim's own nothing is known of the command's, so what is told is then the shim's, an upper bound.

The shim is ours, and says this before anything else can run beside it; it is still parsed as what a stranger says.
Source: getrusage(2).
"""

from __future__ import annotations

import re
from resource import struct_rusage
from typing import NamedTuple

from coworkd.model.process import Rusage

_READY = re.compile(rb"ready((?: [0-9]{1,12}){7})\Z")


class ShimUsage(NamedTuple):
    """Microseconds, counts, and KiB, in the shim's order."""

    user_us: int
    system_us: int
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    max_rss_kib: int

    def take_off(self, usage: struct_rusage) -> Rusage:
        """`usage` is of the whole sandbox."""
        return Rusage(
            user_s=max(0.0, usage.ru_utime - self.user_us / 1e6),
            system_s=max(0.0, usage.ru_stime - self.system_us / 1e6),
            max_rss_bytes=usage.ru_maxrss * 1024,
            minor_faults=max(0, usage.ru_minflt - self.minor_faults),
            major_faults=max(0, usage.ru_majflt - self.major_faults),
            voluntary_switches=max(0, usage.ru_nvcsw - self.voluntary_switches),
            involuntary_switches=max(0, usage.ru_nivcsw - self.involuntary_switches),
        )


NOTHING = ShimUsage(0, 0, 0, 0, 0, 0, 0)


def parse_ready(said: bytes) -> ShimUsage | None:
    """The shim's first message; None for anything else."""
    found = _READY.match(said)
    return None if found is None else ShimUsage(*(int(word) for word in found[1].split()))
