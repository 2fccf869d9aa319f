"""The parts of a bundle that /proc and the cgroups tell: where coworkd's programs stand, what they see mounted, what limits hold.

Rules
- All of it is read, and bounded here. Names of the kernel's own pass, numbers, and options of mounts that say nothing of anybody.
- The levels of cgroups below ours are sessions and commands, and have pseudonyms.

Sources: proc_pid_status(5), proc_pid_mountinfo(5), proc_pid_wchan(5), proc_pid_stack(5), the kernel's documentation of cgroup v2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from coworkd.model.errors import Unavailable
from coworkd.services.report_part import Part
from coworkd.services.report_redact import WORD, Redactor, Rule, each, form, mapping, name, number, prose, record
from coworkd.system.mountinfo import read_mounts

CGROUPS_LIMIT = 512
MOUNTS_LIMIT = 1000
FILE_BYTES = 64 * 1024
NUMBERS = re.compile(r"[a-z0-9_.=\s-]*\Z")
"""What stands in the files of a cgroup, and in those of pressure: names of the kernel's own, numbers, `max`."""
_STATUS = (
    "State",
    "VmRSS",
    "VmHWM",
    "VmSwap",
    "Threads",
    "FDSize",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
)
_CGROUP_FILES = (
    *(
        "memory.current",
        "memory.peak",
        "memory.high",
        "memory.max",
        "memory.swap.max",
        "memory.events",
        "memory.oom.group",
    ),
    *("pids.current", "pids.max", "pids.events", "cpu.max", "cpu.weight", "cpu.stat", "io.weight", "cgroup.freeze"),
    *("cgroup.events", "cgroup.controllers", "cpu.pressure", "memory.pressure", "io.pressure"),
)
_OPTIONS = re.compile(
    r"(?:ro|rw|nosuid|nodev|noexec|noatime|relatime|nodiratime|strictatime|discard|nodiscard|bind|sync|dirsync|lazytime|"
    r"usrquota|grpquota|prjquota|allow_other|default_permissions|nsdelegate|memory_recursiveprot|idmapped|inode64|"
    r"(?:size|nr_inodes|mode|uid|gid|user_id|group_id|max_read|data|errors|cache|resuid|resgid)=[0-9a-z]{1,20}[kmg]?)\Z"
)
_PLACE = re.compile(
    r"(?:/|/dev(?:/[a-z]{1,12})?|/dev/(?:vd|sd|nvme|loop|dm-|mapper/)[a-z0-9]{1,12}|/run(?:/lock)?|/tmp|/proc(?:/sys/fs/binfmt_misc)?|"
    r"/sys(?:/[a-z_0-9]{1,20})*)\Z"
)
"""Where every Linux has something mounted, and what disks are called."""
_KERNEL_SYMBOL = re.compile(r"[A-Za-z0-9_.$]{1,80}(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?\Z")
_PROCESS: Rule = record(
    {
        "pid": number,
        "status": mapping(form(re.compile(r"[A-Za-z_]+\Z")), form(re.compile(r"[A-Za-z0-9 ()]*\Z"))),
        "fds": number,
        "threads": each(record({"name": prose, "waits_in": form(_KERNEL_SYMBOL), "stack": each(form(_KERNEL_SYMBOL))})),
    }
)


def parts_of_proc(pids: Mapping[str, int]) -> Iterator[Part]:
    """`pids` are coworkd's programs by name, as far as they are known."""
    for program, pid in pids.items():
        yield Part(f"process-{program}.json", f"/proc/PID of {program}", partial(_process, pid), _PROCESS)
    mount = record({"kind": form(WORD), "at": _place, "source": _place, "options": each(form(_OPTIONS))})
    yield Part("mounts.json", "mountinfo", lambda: _mounts(pids.get("coworkd")), each(mount))
    values = record({"path": each(_cgroup), "values": mapping(form(WORD), form(NUMBERS))})
    yield Part("cgroups.json", "the launcher's cgroup", lambda: _cgroups(pids.get("launcher")), each(values))


def _place(redactor: Redactor, value: Any) -> Any:
    return value if isinstance(value, str) and _PLACE.match(value) else prose(redactor, value)


def _cgroup(redactor: Redactor, value: Any) -> Any:
    """A level of the tree: ours by its name, a session's or a command's by its pseudonym."""
    return value if value in ("sessions", "supervisor", "workers") else name(redactor, value)


def _process(pid: int) -> dict[str, Any]:
    status = dict(line.partition(":")[::2] for line in read(f"/proc/{pid}/status").splitlines())
    tasks = sorted(os.listdir(f"/proc/{pid}/task"))[:64]
    return {
        "pid": pid,
        "status": {key: status[key].strip().replace("\t", " ") for key in _STATUS if key in status},
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": [_thread(f"/proc/{pid}/task/{task}") for task in tasks],
    }


def _thread(task: str) -> dict[str, Any]:
    """Where it stands in the kernel: what a process that hangs is waiting for."""
    return {
        "name": read_or(f"{task}/comm", "").strip(),
        "waits_in": read_or(f"{task}/wchan", "").strip() or None,
        "stack": [line.rpartition(" ")[2] for line in read_or(f"{task}/stack", "").splitlines()],
    }


def _mounts(pid: int | None) -> list[dict[str, Any]]:
    entries = read_mounts("/proc/self/mountinfo" if pid is None else f"/proc/{pid}/mountinfo")
    return [
        {
            "kind": entry.kind,
            "at": os.fsdecode(entry.mount_point),
            "source": os.fsdecode(entry.source),
            "options": [*entry.options, *entry.super_options],
        }
        for entry in entries[:MOUNTS_LIMIT]
    ]


def _cgroups(launcher_pid: int | None) -> list[dict[str, Any]]:
    if launcher_pid is None:
        raise Unavailable("no launcher is here")
    line = next((line for line in read(f"/proc/{launcher_pid}/cgroup").splitlines() if line.startswith("0::/")), None)
    root = next((os.fsdecode(entry.mount_point) for entry in read_mounts() if entry.kind == "cgroup2"), None)
    if line is None or root is None:
        raise Unavailable("this machine has no cgroup v2")
    own = Path(root) / line.removeprefix("0::/")
    top = own.parent if own.name == "supervisor" else own
    if top.samefile(root):
        raise Unavailable("the launcher has no cgroup of its own")
    found = []
    for directory, _, files in os.walk(top):
        path = os.path.relpath(directory, top)
        found.append(
            {
                "path": [] if path == "." else path.split("/"),
                "values": {file: read_or(f"{directory}/{file}", "") for file in _CGROUP_FILES if file in files},
            }
        )
        if len(found) >= CGROUPS_LIMIT:
            break
    return found


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(FILE_BYTES)


def read_or(path: str, otherwise: str) -> str:
    try:
        return read(path)
    except OSError:
        return otherwise
