"""A small process that runs one command again and again, and tells how long each took: the launcher of the other contestants.

argv: `hybrid` or `plain`, then the command. For each line on stdin: one posix_spawn(3) (vfork), timed to the end of wait4(2), and one line
of seconds. Where it fails, `failed` and what the command said, as one line. `hybrid` first hides the cgroup v2 part of a hybrid
hierarchy from this process alone, in a mount namespace of its own: crun refuses to run beside one that has a controller.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from coworkd.system import mounts, namespaces
from tests.bench.guest import ROOT

UNIFIED = "/sys/fs/cgroup/unified"
_SAID_BYTES = 4096


class CommandFailed(Exception):
    """The command did not end with 0; holds what it said."""


class Timer:
    """The process, from outside."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def run(self) -> float:
        """Seconds of one run; raises `CommandFailed`."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(b"run\n")
        self._child.stdin.flush()
        word, _, said = self._child.stdout.readline().decode(errors="replace").partition(" ")
        if word == "failed":
            raise CommandFailed(said.strip())
        return float(word)


@contextlib.contextmanager
def open_timer(argv: list[str], *, without_unified: bool = False) -> Iterator[Timer]:
    """Start the process; it ends at the end of its stdin."""
    mode = "hybrid" if without_unified and os.path.ismount(UNIFIED) else "plain"
    command = [sys.executable, "-m", "tests.bench.timer", mode, *argv]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdin is not None
        yield Timer(child)
        child.stdin.close()
        child.wait(10)


# -- inside -------------------------------------------------------------------------------------------------------


def _hide_unified() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(b"none", b"/", b"", mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.umount(os.fsencode(UNIFIED), mounts.MNT_DETACH)


def _run(program: str, argv: list[str]) -> float:
    said = os.memfd_create("bench", os.MFD_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), *((os.POSIX_SPAWN_DUP2, said, fd) for fd in (1, 2))]
    began = time.perf_counter()
    pid = os.posix_spawn(program, argv, os.environ, file_actions=actions)
    _, status, _ = os.wait4(pid, 0)
    took = time.perf_counter() - began
    words = os.pread(said, _SAID_BYTES, 0)
    for fd in (said, null):
        os.close(fd)
    if status != 0:
        raise CommandFailed(f"{argv[0]}: {words.decode(errors='replace').strip() or f'status {status}'}")
    return took


def _find(name: str) -> str:
    for directory in os.get_exec_path():
        if os.access(Path(directory, name), os.X_OK):
            return str(Path(directory, name))
    raise FileNotFoundError(name)


def main() -> None:
    mode, *argv = sys.argv[1:]
    program = _find(argv[0])
    if mode == "hybrid":
        _hide_unified()
    for _ in sys.stdin.buffer:
        try:
            print(_run(program, argv), flush=True)
        except CommandFailed as error:
            print("failed", " ".join(str(error).split()), flush=True)


if __name__ == "__main__":
    main()
