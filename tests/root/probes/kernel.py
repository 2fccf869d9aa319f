"""What every probe stands on: system calls by number, outcomes as words, a process of its own for each. Standard library only.

Runs inside the sandbox, on the guest's own Python. An outcome is an errno name (`EPERM`), `ok:N`, or what a probe says itself;
`killed:SIGSYS` where the kernel ended it, `broken: …` where the probe failed as a program (never an expected outcome).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

PROBE_TIMEOUT_S = 5
WORD = (1 << 64) - 1
Given = dict[str, Any]
Program = Callable[[Given], str]
PROGRAMS: dict[str, Program] = {}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def probe(name: str) -> Callable[[Program], Program]:
    """Register a probe program under the id it has in programs.toml."""

    def register(program: Program) -> Program:
        PROGRAMS[name] = program
        return program

    return register


def syscall(number: int, *arguments: int | bytes | Sequence[int]) -> int:
    """One call: an int goes as it stands, bytes as a C string, a sequence as an array of 64-bit words. Raises OSError."""
    kept: list[Any] = []
    words: list[Any] = []
    for argument in arguments:
        if isinstance(argument, int):
            words.append(ctypes.c_ulong(argument & WORD))
            continue
        if isinstance(argument, bytes):
            kept.append(ctypes.create_string_buffer(argument))
        else:
            kept.append((ctypes.c_uint64 * len(argument))(*argument))
        words.append(ctypes.c_void_p(ctypes.addressof(kept[-1])))
    while len(words) < 6:
        words.append(ctypes.c_ulong(0))
    ctypes.set_errno(0)
    caller = os.getpid()
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if os.getpid() != caller:
        # A clone that should have been refused: the child says nothing.
        os._exit(0)
    if result == -1:
        number_of_error = ctypes.get_errno()
        raise OSError(number_of_error, os.strerror(number_of_error))
    return result


def word_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, f"errno {error.errno}")


def attempt(action: Callable[[], Any], told: str = "ok") -> str:
    """`told` if the action goes through, else its errno's name."""
    try:
        action()
    except OSError as error:
        return word_of(error)
    return told


def in_child(action: Callable[[], str]) -> str:
    """The outcome of `action`, run in a child that has PROBE_TIMEOUT_S."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(PROBE_TIMEOUT_S)
        try:
            said = action()
        except OSError as error:
            said = word_of(error)
        except BaseException as error:
            said = f"broken: {error!r}"
        os.write(write_end, said.encode()[:4096])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed:{signal.Signals(os.WTERMSIG(status)).name}"
    return said


def read_text(path: str, limit_bytes: int = 1 << 20) -> str:
    with open(path, "rb") as file:
        return file.read(limit_bytes).decode(errors="replace")


def write_text(path: str, text: str) -> str:
    """`written`, or the errno of open(2) or of write(2): what a buffer would lose at its close is told."""
    try:
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)
    except OSError as error:
        return word_of(error)
    return "written"


def status_field(name: str, pid: str = "self") -> str:
    """One field of /proc/PID/status; KeyError where there is none."""
    fields = dict(line.split(":", 1) for line in read_text(f"/proc/{pid}/status").splitlines())
    return fields[name].strip()
