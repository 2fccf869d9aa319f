"""Who started a process, up to the first: parents by proc_pid_stat(5).

Rules: one small file of /proc is read for each step, at most `STEPS` of them. A thread's id is as good as its process's. What is gone has
no parents: whoever needs them asks while the process waits, or at once. A parent that ends leaves its children to the init of their pid
namespace, so the way up from a sandbox always leads over its init.
"""

from __future__ import annotations

STEPS = 64


def read_ancestry(pid: int) -> tuple[int, ...]:
    """`pid`, its parent, and so on, the first process left out; empty where `pid` is gone, or is none."""
    found: list[int] = []
    while pid > 1 and len(found) < STEPS:
        parent = _read_parent(pid)
        if parent is None:
            break
        found.append(pid)
        pid = parent
    return tuple(found)


def _read_parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            data = file.read(4096)
    except OSError:
        return None
    # The name is anything, spaces and brackets included; what stands behind its last bracket is the kernel's.
    fields = data[data.rfind(b")") + 1 :].split(maxsplit=2)
    return int(fields[1]) if len(fields) > 1 else None
