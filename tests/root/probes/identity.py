"""Who a command is: credentials, capabilities, filters; and what it could become by programs, machine code or its init."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
from functools import partial

from tests.root.probes.kernel import Given, attempt, libc, probe, read_text, status_field, write_text

INT80_GETPID = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"
"""mov eax, 20 (i386 getpid); int 0x80; ret"""
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@probe("identity.capabilities")
def capabilities(_given: Given) -> str:
    return " ".join(sorted({status_field(name) for name in CAPABILITY_SETS}))


@probe("identity.init-capabilities")
def init_capabilities(_given: Given) -> str:
    return " ".join(sorted({status_field(name, "1") for name in CAPABILITY_SETS}))


@probe("identity.no-new-privs")
def no_new_privs(_given: Given) -> str:
    return status_field("NoNewPrivs")


@probe("identity.filters")
def filters(_given: Given) -> str:
    return f"mode {status_field('Seccomp')} filters {status_field('Seccomp_filters')}"


@probe("identity.init-filters")
def init_filters(_given: Given) -> str:
    return f"mode {status_field('Seccomp', '1')} filters {status_field('Seccomp_filters', '1')}"


@probe("identity.init-no-new-privs")
def init_no_new_privs(_given: Given) -> str:
    return status_field("NoNewPrivs", "1")


@probe("identity.uids")
def uids(given: Given) -> str:
    wanted = "\t".join([str(given["uid"])] * 4)
    return "own" if status_field("Uid") == wanted == status_field("Gid") else status_field("Uid")


@probe("identity.groups")
def groups(_given: Given) -> str:
    return status_field("Groups") or "none"


@probe("identity.uid-map")
def uid_map(given: Given) -> str:
    inside, _, count = read_text("/proc/self/uid_map").split()
    return "own only" if (inside, count) == (str(given["uid"]), "1") else f"{count} from {inside}"


@probe("identity.uid-map-write")
def uid_map_write(_given: Given) -> str:
    return write_text("/proc/self/uid_map", "0 0 1")


@probe("identity.setgroups-allow")
def setgroups_allow(_given: Given) -> str:
    return write_text("/proc/self/setgroups", "allow")


@probe("identity.setfsuid")
def setfsuid(given: Given) -> str:
    libc.setfsuid(0)
    return "unchanged" if libc.setfsuid(0) == given["uid"] else "changed"


def _said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=4, check=False)
    return f"{done.stdout.strip()} exit {'0' if done.returncode == 0 else 'other'}".strip()


@probe("setuid-program.su")
def run_su(_given: Given) -> str:
    return _said_by("/usr/bin/su", "-c", "/usr/bin/id -u")


@probe("setuid-program.mount")
def run_mount(_given: Given) -> str:
    return _said_by("/usr/bin/mount", "-t", "tmpfs", "none", "/tmp")


@probe("setuid-program.passwd")
def run_passwd(_given: Given) -> str:
    return _said_by("/usr/bin/passwd", "-d", "root")


@probe("setuid-program.newgrp")
def run_newgrp(_given: Given) -> str:
    return _said_by("/usr/bin/sg", "root", "/usr/bin/id -g")


@probe("setuid-program.in-folder")
def run_planted(given: Given) -> str:
    """The host put a set-user-id root `id` into the shared folder."""
    said = _said_by(given["planted_setuid"], "-u")
    return "own uid" if said == f"{given['uid']} exit 0" else said


@probe("setuid-program.unshare")
def run_unshare(_given: Given) -> str:
    return _said_by("/usr/bin/unshare", "--user", "--map-root-user", "/usr/bin/id", "-u")


@probe("setuid-program.bwrap")
def run_bwrap(_given: Given) -> str:
    return _said_by("/usr/bin/bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "/usr/bin/id", "-u")


@probe("machine-code.int80")
def int80(_given: Given) -> str:
    """An i386 call out of a 64-bit program: the filters see a foreign architecture and end it."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(INT80_GETPID)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return f"returned {ctypes.CFUNCTYPE(ctypes.c_int)(address)()}"


@probe("process.ptrace-init")
def ptrace_init(_given: Given) -> str:
    """bubblewrap's init has no filters for a moment after the command was forked, so nobody may trace it."""

    def trace() -> None:
        ctypes.set_errno(0)
        if libc.ptrace(PTRACE_SEIZE, 1, 0, 0) == -1:
            raise OSError(ctypes.get_errno(), "ptrace")
        libc.ptrace(PTRACE_DETACH, 1, 0, 0)

    return attempt(trace)


@probe("process.init-memory")
def init_memory(_given: Given) -> str:
    """Every file that leads to the memory of init."""
    tasks = [f"/proc/1/task/{name}/mem" for name in os.listdir("/proc/1/task")]
    return " ".join(sorted({attempt(partial(os.open, path, os.O_RDWR)) for path in ("/proc/1/mem", *tasks)}))


@probe("process.init-memory-by-directory")
def init_memory_by_directory(_given: Given) -> str:
    """The same by a descriptor of /proc/1."""
    directory = os.open("/proc/1", os.O_RDONLY)
    return attempt(lambda: os.open("mem", os.O_RDONLY, dir_fd=directory))


@probe("process.kill-init")
def kill_init(_given: Given) -> str:
    """Its own namespace cannot signal an init that has no handler: nothing happens."""
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGSTOP)
    return "alive" if status_field("State", "1")[0] in "SR" else status_field("State", "1")


@probe("process.oom-score-lower")
def oom_score_lower(_given: Given) -> str:
    """Below 0. Where the guest's root has CAP_SYS_RESOURCE, the kernel keeps 100 as the least."""
    return write_text("/proc/self/oom_score_adj", "-1")


@probe("process.oom-score")
def oom_score(_given: Given) -> str:
    return read_text("/proc/self/oom_score_adj").strip()


@probe("process.core-dump")
def core_dump(_given: Given) -> str:
    child = os.fork()
    if child == 0:
        os.chdir("/tmp")
        os.kill(os.getpid(), signal.SIGQUIT)
    _, status = os.waitpid(child, 0)
    return "dumped" if os.WCOREDUMP(status) else "no core"
