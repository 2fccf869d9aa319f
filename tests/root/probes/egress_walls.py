"""Run as root in a child: puts up the walls of coworkd-egress and tries to get over them. Prints one JSON map, probe → what happened."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable

from coworkd.egressd import lockdown

UID = 64999


def attempt(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"
    return "done"


def listener() -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()


def abstract() -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect("\0coworkd-outside")


def in_thread() -> str:
    answers: list[str] = []

    def look_up() -> None:
        socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        answers.append(attempt(os.fork))

    thread = threading.Thread(target=look_up)
    thread.start()
    thread.join()
    return answers[0]


def writable_code() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_long
    if libc.mmap(None, 4096, 7, 0x22, -1, 0) == -1:
        raise OSError(ctypes.get_errno(), "mmap")


def memory_file() -> None:
    fd = os.memfd_create("x", os.MFD_CLOEXEC)
    os.write(fd, b"y")
    with open(f"/proc/self/fd/{fd}", "rb") as again:
        assert again.read() == b"y"


def main() -> None:
    outside, mine = socket.socket(socket.AF_UNIX), os.path.abspath(sys.argv[1])
    outside.bind("\0coworkd-outside")
    outside.listen()
    told = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)  # /proc is out of reach afterwards
    degraded = lockdown.drop(uid=UID, gid=UID)
    bpf = bytes.fromhex(sys.argv[2])
    lockdown.install_filter(bpf)
    with os.fdopen(told) as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    answers: dict[str, object] = {
        "degraded": degraded,
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "caps": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no_new_privs": status["NoNewPrivs"],
        "seccomp": status["Seccomp"],
        "filters": status.get("Seccomp_filters", "1"),
        "become_root": attempt(lambda: os.setuid(0)),
        "read_mine": attempt(lambda: open(mine).close()),
        "list_root": attempt(lambda: os.listdir("/")),
        "list_home": attempt(lambda: os.listdir("/root")),
        "write_tmp": attempt(lambda: open("/tmp/coworkd-egress-probe", "w").close()),
        "read_library": attempt(lambda: open("/etc/nsswitch.conf").close()),
        "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
        "fork": attempt(os.fork),
        "listen": attempt(listener),
        "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()),
        "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
        "abstract": attempt(abstract),
        "signal": attempt(lambda: os.kill(os.getppid(), 0)),
        "writable_code": attempt(writable_code),
        "memory_file": attempt(memory_file),
        "pipe": attempt(os.pipe),
        "tls": attempt(lambda: ssl.create_default_context()),
        "thread_and_names": in_thread(),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
