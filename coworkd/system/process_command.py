"""What a process is: its command line, its directory, and a name that no other process ever had.

Sources: proc_pid_status(5), proc_pid_stat(5), proc_pid_cmdline(5). `read_identity` reads what the kernel alone has made. `read_command`
reads the process's own memory, which may lie on a file system that hangs: never call it on an event loop. A process says of itself
whatever it likes there.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

COMMAND_LINE_BYTES = 256 * 1024
_TGID = re.compile(rb"^Tgid:\s+([0-9]+)$", re.MULTILINE)
_START_FIELD = 20 - 1
"""Field 22 of stat(5), counted from behind the name: state is the first."""


class Identity(NamedTuple):
    """A process among all that have been since boot."""

    pid: int
    start_ticks: int


class Command(NamedTuple):
    """What runs; `argv` may be cut at its end, and empty of a process that has none."""

    identity: Identity
    name: bytes
    argv: tuple[bytes, ...]
    is_cut: bool
    directory: bytes


def read_identity(pid: int) -> Identity | None:
    """Whose thread `pid` is, None where it is gone."""
    try:
        match = _TGID.search(_read(f"/proc/{pid}/status", 4096))
        leader = int(match[1]) if match else pid
        data = _read(f"/proc/{leader}/stat", 4096)
        return Identity(leader, int(data[data.rfind(b")") + 1 :].split()[_START_FIELD]))
    except (OSError, IndexError, ValueError):
        return None


def read_command(pid: int) -> Command | None:
    """What runs as `pid`, None where it is gone or cannot be seen. May block."""
    identity = read_identity(pid)
    if identity is None:
        return None
    try:
        line = _read(f"/proc/{identity.pid}/cmdline", COMMAND_LINE_BYTES + 1)
        name = _read(f"/proc/{identity.pid}/comm", 64).rstrip(b"\n")
        directory = os.readlink(b"/proc/%d/cwd" % identity.pid)
    except OSError:
        return None
    if read_identity(pid) != identity:
        return None
    words = line.split(b"\0")
    is_cut = len(line) > COMMAND_LINE_BYTES
    # The last word ends with a NUL too; of a line that was cut the last one may be half a word.
    return Command(identity, name, tuple(words[:-1]), is_cut, directory)


def _read(path: str, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while len(data) < limit and (piece := os.read(fd, limit - len(data))):
            data += piece
        return data
    finally:
        os.close(fd)
