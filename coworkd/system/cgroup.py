"""cgroup v2: make, limit, freeze, kill, ask, remove.

Rules: only v2 is ever touched; a v1 hierarchy is left as it is. A controller that is missing is told by `missing_controllers`, never
worked around. A cgroup is a directory; removing it needs it empty (EBUSY until its last process is reaped).
Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import time

_WANTED = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
SUPERVISOR, SESSIONS = "supervisor", "sessions"
"""Below a delegated cgroup: the leaf of who divides it, and where its children's are."""


def find_root(mountinfo: str) -> str | None:
    """The mount point of the cgroup2 file system in the text of /proc/self/mountinfo, or None."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return left.split()[4]
    return None


def choose_own(name: str) -> str | None:
    """Where a launcher without a unit of its own makes its cgroups: `name` below the v2 root, None where there is no v2."""
    root = find_root(_read("/proc/self/mountinfo"))
    return None if root is None else os.path.join(root, name)


def claim_delegated() -> str | None:
    """Divide the cgroup this process was started in, which was delegated to it: itself into the leaf `supervisor`, so that controllers can
    be given to the rest. Returns where its children's cgroups go, None where there is no v2. Raises `OSError`.

    No process may sit in a cgroup whose children have controllers ("no internal processes").
    """
    root = find_root(_read("/proc/self/mountinfo"))
    path = parse_own(_read("/proc/self/cgroup"))
    if root is None or path is None:
        return None
    own = root + path.rstrip("/")
    if own.endswith(f"/{SUPERVISOR}"):
        own = os.path.dirname(own)
    leaf = f"{own}/{SUPERVISOR}"
    create(leaf)
    _write(f"{leaf}/cgroup.procs", "0")
    enable_controllers(own)
    return f"{own}/{SESSIONS}"


def parse_own(text: str) -> str | None:
    """The v2 path in the text of /proc/self/cgroup, or None."""
    return next((line[3:] for line in text.splitlines() if line.startswith("0::/")), None)


def missing_controllers(directory: str) -> tuple[str, ...]:
    """Which of memory, pids and cpu cannot be used below `directory`."""
    available = _read(f"{directory}/cgroup.controllers").split()
    return tuple(name for name in _WANTED if name not in available)


def enable_controllers(directory: str) -> None:
    """Give the children of `directory` every wanted controller it has."""
    available = _read(f"{directory}/cgroup.controllers").split()
    wanted = " ".join(f"+{name}" for name in _WANTED if name in available)
    if wanted:
        _write(f"{directory}/cgroup.subtree_control", wanted)


def create(directory: str) -> None:
    """Make the cgroup; it may exist."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o755)


def limit(directory: str, *, memory_max_bytes: int, pids_max: int, cpu_max: float | None) -> None:
    """Set what the cgroup's controllers allow: whole-group OOM kill, no swap. Absent controllers are passed over.

    `cpu_max` is in CPUs; None leaves the CPU to the parent's limit.
    """
    values = {
        "memory.max": str(memory_max_bytes),
        "memory.high": str(memory_max_bytes - memory_max_bytes // 16),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": str(pids_max),
    }
    if cpu_max is not None:
        values["cpu.max"] = f"{int(cpu_max * _PERIOD_US)} {_PERIOD_US}"
    for name, value in values.items():
        if os.path.exists(f"{directory}/{name}"):
            _write(f"{directory}/{name}", value)


def kill(directory: str) -> bool:
    """SIGKILL everything in the cgroup and below, frozen or not; False where the kernel cannot (before 5.14) or it is gone."""
    try:
        _write(f"{directory}/cgroup.kill", "1")
    except FileNotFoundError:
        return False
    return True


def freeze(directory: str, frozen: bool) -> None:
    """Stop or continue everything in the cgroup and below."""
    _write(f"{directory}/cgroup.freeze", "1" if frozen else "0")


def oom_kills(directory: str) -> int:
    """How many processes the OOM killer took in the cgroup; 0 where there is no memory controller."""
    with contextlib.suppress(FileNotFoundError):
        for line in _read(f"{directory}/memory.events").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def remove(directory: str, *, wait_s: float = 0.0) -> bool:
    """Remove the cgroup and its empty children; False if something in it still lives after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            _remove_tree(directory)
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        else:
            return True


def _remove_tree(directory: str) -> None:
    with os.scandir(directory) as entries:
        children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for child in children:
        _remove_tree(child)
    os.rmdir(directory)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
