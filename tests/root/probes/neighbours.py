"""Another session, bob, at work at the same time: his files, memory, processes, sockets and IPC objects.

`victim.py` is what bob runs; it holds one thing of every kind and says where.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable
from functools import partial

from tests.root.probes.kernel import Given, attempt, libc, probe, read_text, syscall, word_of


@probe("neighbour.home")
def home(given: Given) -> str:
    return attempt(lambda: os.listdir(given["bob"]["home"]))


@probe("neighbour.home-by-init-root")
def home_by_init(given: Given) -> str:
    return attempt(lambda: os.listdir("/proc/1/root" + given["bob"]["home"]))


@probe("neighbour.home-by-dots")
def home_by_dots(given: Given) -> str:
    return attempt(lambda: os.listdir(f"{given['home']}/mnt/../../{given['bob']['name']}"))


@probe("neighbour.file")
def file(given: Given) -> str:
    return attempt(lambda: os.open(given["bob"]["file"], os.O_RDONLY))


@probe("neighbour.tmp-file")
def tmp_file(given: Given) -> str:
    return attempt(lambda: os.open(given["bob"]["tmp"], os.O_RDONLY))


@probe("neighbour.shared-memory-file")
def shm_file(given: Given) -> str:
    return attempt(lambda: os.open(given["bob"]["shm"], os.O_RDONLY))


@probe("neighbour.sysv-shared-memory")
def sysv_shm(given: Given) -> str:
    return _c("shmget", given["bob"]["sysv_key"], 0, 0)


@probe("neighbour.sysv-semaphore")
def sysv_semaphore(given: Given) -> str:
    return _c("semget", given["bob"]["sysv_key"], 0, 0)


@probe("neighbour.sysv-queue")
def sysv_queue(given: Given) -> str:
    return _c("msgget", given["bob"]["sysv_key"], 0)


@probe("neighbour.sysv-list")
def sysv_list(_given: Given) -> str:
    lines = [read_text(f"/proc/sysvipc/{kind}").splitlines()[1:] for kind in ("shm", "sem", "msg")]
    return "none" if lines == [[], [], []] else "listed"


@probe("neighbour.posix-queue")
def posix_queue(given: Given) -> str:
    return attempt(lambda: syscall(given["numbers"]["mq_open"], given["bob"]["queue"].encode(), os.O_RDONLY, 0, 0))


def _c(name: str, *arguments: int) -> str:
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) == -1:
        return word_of(OSError(ctypes.get_errno(), name))
    return "ok"


def _connect(family: int, address: str | tuple[str, int]) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as end:
        end.settimeout(2)
        return attempt(lambda: end.connect(address))


@probe("neighbour.abstract-socket")
def abstract(given: Given) -> str:
    return _connect(socket.AF_UNIX, "\0" + given["bob"]["abstract"])


@probe("neighbour.path-socket")
def path_socket(given: Given) -> str:
    return _connect(socket.AF_UNIX, given["bob"]["path_socket"])


@probe("neighbour.port")
def port(given: Given) -> str:
    return _connect(socket.AF_INET, ("127.0.0.1", given["bob"]["port"]))


@probe("neighbour.port-by-ipv6")
def port6(given: Given) -> str:
    return _connect(socket.AF_INET6, ("::1", given["bob"]["port"]))


@probe("neighbour.signal")
def signal_bob(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.kill(pid, 0))


@probe("neighbour.signal-group")
def signal_group(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.killpg(pid, signal.SIGCONT))


@probe("neighbour.pidfd")
def pidfd(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.pidfd_open(pid))


@probe("neighbour.ptrace")
def ptrace(given: Given) -> str:
    return _of_every_pid(given, lambda pid: syscall(given["numbers"]["ptrace"], 0x4206, pid, 0, 0))


@probe("neighbour.read-memory")
def read_memory(given: Given) -> str:
    return _of_every_pid(
        given, lambda pid: syscall(given["numbers"]["process_vm_readv"], pid, [4096, 8], 1, [4096, 8], 1, 0)
    )


@probe("neighbour.environment")
def environment(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.open(f"/proc/{pid}/environ", os.O_RDONLY))


@probe("neighbour.memory-file")
def memory_file(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.open(f"/proc/{pid}/mem", os.O_RDWR))


@probe("neighbour.priority")
def priority(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.getpriority(os.PRIO_PROCESS, pid))


@probe("neighbour.scheduling")
def scheduling(given: Given) -> str:
    return _of_every_pid(given, lambda pid: os.sched_setaffinity(pid, {0}))


@probe("neighbour.limits")
def limits(given: Given) -> str:
    return _of_every_pid(given, lambda pid: syscall(given["numbers"]["prlimit64"], pid, 7, 0, [0, 0]))


def _of_every_pid(given: Given, action: Callable[[int], object]) -> str:
    """Bob's processes and coworkd's own, by the numbers the guest knows them by; what stands for a pid of ours is left out."""
    own = {name for name in os.listdir("/proc") if name.isdigit()}
    pids = [pid for pid in given["pids"] if str(pid) not in own]
    if len(pids) < 2:
        return f"broken: the guest's pids {given['pids']} are all ours too"
    return " ".join(sorted({attempt(partial(action, pid)) for pid in pids}))


@probe("neighbour.marker-in-proc")
def marker(given: Given) -> str:
    """Bob's secret stands in his argv and environment; no file of /proc/PID here has it."""
    secret = given["bob"]["secret"].encode()
    seen = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    seen += secret in file.read()
            except OSError:
                continue
    return f"{seen} times"


@probe("neighbour.namespaces")
def namespaces(given: Given) -> str:
    """None of its namespaces is the guest's own, nor bob's."""
    shared = [
        name
        for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
        if os.readlink(f"/proc/self/ns/{name}") in (given["namespaces"][name], given["bob"]["namespaces"][name])
    ]
    return " ".join(shared) or "none shared"
