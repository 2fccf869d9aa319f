"""What a process can find out about itself and its sandbox, and two like it must find alike: as JSON on stdout. Standard library only."""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import re
import resource
import signal
import stat
import sys
import termios

UNSTEADY = re.compile(r"Vm|Rss|Hugetlb|Threads|voluntary|nonvoluntary|Speculation")
"""Of /proc/self/status: what depends on the moment."""
PRCTL = {
    "dumpable": 3,
    "keepcaps": 7,
    "securebits": 27,
    "timerslack": 30,
    "subreaper": 37,
    "no_new_privs": 39,
    "thp_disable": 42,
}
PDEATHSIG = 2


def read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="surrogateescape")
    except OSError as error:
        return f"errno {error.errno}"


def status(path: str) -> list[str]:
    return [line for line in read(path).splitlines() if not UNSTEADY.match(line)]


def descriptors() -> dict[str, str]:
    found = {}
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            kind = os.fstat(int(name))
            flags = fcntl.fcntl(int(name), fcntl.F_GETFL), fcntl.fcntl(int(name), fcntl.F_GETFD)
        except OSError:
            continue  # the directory's own
        target = re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{name}"))
        found[name] = f"{target} {stat.filemode(kind.st_mode)} {kind.st_uid} {flags}"
    return found


def processes() -> list[str]:
    """What else there is: pid 1's words included, since `ps` shows them."""
    return [
        f"{pid} {read(f'/proc/{pid}/comm').strip()} {read(f'/proc/{pid}/cmdline') if pid == '1' else ''}"
        for pid in sorted(os.listdir("/proc"))
        if pid.isdecimal()
    ]


def prctls() -> dict[str, int]:
    libc = ctypes.CDLL(None)
    got = {name: libc.prctl(number, 0, 0, 0, 0) for name, number in PRCTL.items()}
    deathsig = ctypes.c_int(-1)
    libc.prctl(PDEATHSIG, ctypes.byref(deathsig), 0, 0, 0)
    return {**got, "pdeathsig": deathsig.value}


def terminal() -> object:
    if not os.isatty(0):
        return None
    size = array.array("H", [0] * 4)
    fcntl.ioctl(0, termios.TIOCGWINSZ, size)
    modes = [
        [one.hex() if isinstance(one, bytes) else one for one in part] if isinstance(part, list) else part
        for part in termios.tcgetattr(0)
    ]
    return os.ttyname(0), size.tolist(), modes, os.tcgetpgrp(0) == os.getpgrp()


def signals() -> dict[str, str]:
    return {str(number): str(signal.getsignal(number)) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)}


def seen() -> dict[str, object]:
    return {
        "argv": read("/proc/self/cmdline").split("\0"),
        "environ": read("/proc/self/environ").split("\0"),
        "comm": read("/proc/self/comm"),
        "exe": os.readlink("/proc/self/exe"),
        "cwd": os.getcwd(),
        "root": os.readlink("/proc/self/root"),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "place": [os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)],
        "umask": oct(os.umask(0)),
        "nice": [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        "rlimits": read("/proc/self/limits"),
        "status": status("/proc/self/status"),
        "init": status("/proc/1/status"),
        "oom": [read(f"/proc/self/{name}") for name in ("oom_score_adj", "coredump_filter", "loginuid", "sessionid")],
        "cgroup": re.sub(r"\d+", "N", read("/proc/self/cgroup")),
        "maps": [read("/proc/self/uid_map"), read("/proc/self/gid_map"), read("/proc/self/setgroups")],
        "namespaces": sorted(os.listdir("/proc/self/ns")),
        "same_as_init": [
            os.stat(f"/proc/self/ns/{name}").st_ino == os.stat(f"/proc/1/ns/{name}").st_ino
            for name in ("mnt", "net", "pid")
        ],
        "network": os.stat("/proc/self/ns/net").st_ino,
        "mounts": read("/proc/self/mounts"),
        "hostname": os.uname().nodename,
        "descriptors": descriptors(),
        "processes": processes(),
        "prctls": prctls(),
        "personality": read("/proc/self/personality"),
        "timerslack": read("/proc/self/timerslack_ns"),
        "terminal": terminal(),
        "signals": signals(),
        "stdin": "" if os.isatty(0) else sys.stdin.read(),
        "usage": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }


if __name__ == "__main__":
    print(json.dumps(seen(), sort_keys=True, indent=1))
