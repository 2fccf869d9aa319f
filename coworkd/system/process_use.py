"""What one process takes of the machine: resident memory, its share of it, descriptors and threads.

Thin: reads /proc, and passes over what the kernel does not give (`smaps_rollup` and `fd` want the rights of ptrace(2)). A process that has
gone is None. Sources: proc_pid_statm(5), proc_pid_smaps_rollup(5), proc_pid_fd(5).
"""

from __future__ import annotations

import os

from msgspec import Struct

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessUse(Struct, frozen=True, kw_only=True):
    """None for what the kernel does not tell."""

    rss_bytes: int
    pss_bytes: int | None
    fds: int | None
    threads: int | None


def read_use(pid: int) -> ProcessUse | None:
    """Half a millisecond for a process of 40 MiB, most of it for `pss_bytes`."""
    statm = _read(f"/proc/{pid}/statm")
    if not statm:
        return None
    return ProcessUse(
        rss_bytes=int(statm.split()[1]) * _PAGE_BYTES,
        pss_bytes=parse_pss(_read(f"/proc/{pid}/smaps_rollup")),
        fds=_count(f"/proc/{pid}/fd"),
        threads=_count(f"/proc/{pid}/task"),
    )


def parse_pss(rollup: bytes) -> int | None:
    """The line `Pss:`, in bytes."""
    for line in rollup.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _count(directory: str) -> int | None:
    try:
        return len(os.listdir(directory))
    except OSError:
        return None
