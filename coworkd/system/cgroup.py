"""cgroup v2: find, make, freeze, kill, remove.

Rules: only v2 is ever touched; a v1 hierarchy is left as it is. A controller that is missing is told by `missing_controllers`, never
worked around. A cgroup is a directory; removing it needs it empty (EBUSY until its last process is reaped).
Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import time

_WANTED = ("memory", "pids", "cpu")
_ALSO = ("io",)
"""Used where it is there."""
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
    write(f"{leaf}/cgroup.procs", "0")
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
    wanted = " ".join(f"+{name}" for name in (*_WANTED, *_ALSO) if name in available)
    if wanted:
        write(f"{directory}/cgroup.subtree_control", wanted)


def create(directory: str) -> None:
    """Make the cgroup; it may exist."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o755)


def events(directory: str, name: str) -> dict[str, int]:
    """A file of `word number` lines; empty where it is not there."""
    found: dict[str, int] = {}
    for line in read_text(directory, name).splitlines():
        word, _, value = line.partition(" ")
        if value.isdecimal():
            found[word] = int(value)
    return found


def number(directory: str, name: str) -> int | None:
    """A file of one number; None for `max`, and where it is not there."""
    text = read_text(directory, name).strip()
    return int(text) if text.isdecimal() else None


def protect(directory: str, min_bytes: int) -> None:
    """Let so much of its memory never be taken for others, as far as the groups above are granted it. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        write(f"{directory}/memory.min", str(min_bytes))


def kill_as_one(directory: str) -> None:
    """Have the OOM killer take all that is in it when it takes one; passed over where there is no memory controller."""
    with contextlib.suppress(FileNotFoundError):
        write(f"{directory}/memory.oom.group", "1")


def kill(directory: str) -> bool:
    """SIGKILL everything in the cgroup and below, frozen or not; False where the kernel cannot (before 5.14) or it is gone."""
    try:
        write(f"{directory}/cgroup.kill", "1")
    except FileNotFoundError:
        return False
    return True


def freeze(directory: str, frozen: bool) -> None:
    """Stop or continue everything in the cgroup and below."""
    write(f"{directory}/cgroup.freeze", "1" if frozen else "0")


def is_frozen(directory: str) -> bool:
    """Whether nothing in it runs any more; what sleeps in the kernel stops when that lets go of it."""
    return events(directory, "cgroup.events").get("frozen") == 1


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


def read_text(directory: str, name: str) -> str:
    """One of its files; empty where there is none."""
    try:
        return _read(f"{directory}/{name}")
    except OSError:  # it is not there, has gone meanwhile (ENODEV), or this kernel does not count it
        return ""


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Give the kernel a word. Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
