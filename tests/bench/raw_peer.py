"""Raw bubblewrap, as fair as can be: what ours gives to bubblewrap, by the least of a launcher.

This small process joins the session's mount and network namespaces and takes the session's uid once, before anything is timed; then each
run is one posix_spawn(3) (vfork) of bubblewrap with the same options, the same two filters and a status pipe, timed from there
to the end of wait4(2). The descriptors a run needs are made before its time begins.

Conversation: a JSON `Setup` on the first line of stdin; then each line `single` or `many COUNT CONCURRENCY` is answered by one
line with seconds.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
_ARGS, _BASE, _ADMIN, _STATUS = 3, 4, 5, 6
_PARKED = 100


class Setup(Struct, frozen=True, kw_only=True):
    """What to become and what to run. `monitor_pid` is a process in the session's namespaces."""

    monitor_pid: int
    uid: int
    gid: int
    bubblewrap: str
    bwrap_args: tuple[bytes, ...]
    filters: tuple[bytes, bytes]
    argv: tuple[str, ...]


class RawPeer:
    """The peer, from outside."""

    def __init__(self, child: subprocess.Popen[bytes], setup: Setup) -> None:
        self._child = child
        self.setup = setup

    def single(self) -> float:
        """Seconds of one run."""
        return self._ask(b"single\n")

    def many(self, count: int, concurrency: int) -> float:
        """Seconds of `count` runs, `concurrency` at a time."""
        return self._ask(b"many %d %d\n" % (count, concurrency))

    def _ask(self, question: bytes) -> float:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(question)
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError("raw bubblewrap did not run as it must; its words are above")
        return float(answer)


@contextlib.contextmanager
def open_raw_peer(setup: Setup) -> Iterator[RawPeer]:
    """Start the peer; it ends at the end of its stdin."""
    command = [sys.executable, "-m", "tests.bench.raw_peer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(setup) + b"\n")
        child.stdin.flush()
        yield RawPeer(child, setup)
        child.stdin.close()
        child.wait(10)


# -- inside the peer ----------------------------------------------------------------------------------------------


class Run:
    """Starts bubblewrap; every run has descriptors of its own, since bubblewrap reads from the current offset."""

    def __init__(self, setup: Setup) -> None:
        self._bubblewrap = setup.bubblewrap
        self._argv = ["bwrap", "--args", str(_ARGS), "--", *setup.argv]
        options = [*setup.bwrap_args, b"--add-seccomp-fd", b"%d" % _BASE, b"--add-seccomp-fd", b"%d" % _ADMIN]
        options += [b"--json-status-fd", b"%d" % _STATUS]
        self._contents = (b"\0".join(options) + b"\0", *setup.filters)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def prepare(self) -> list[int]:
        """Options, both filters, both ends of the status pipe; the caller closes them."""
        fds = [_memfd(content) for content in self._contents]
        return [*fds, *os.pipe2(os.O_CLOEXEC)]

    def spawn(self, fds: list[int]) -> int:
        args, base, admin, _, status = fds
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, self._null, fd) for fd in (0, 1, 2)]
        moves = ((args, _ARGS), (base, _BASE), (admin, _ADMIN), (status, _STATUS))
        # Parked above all targets first, so that no target overwrites a source still to be moved.
        actions += [(os.POSIX_SPAWN_DUP2, fd, _PARKED + target) for fd, target in moves]
        actions += [(os.POSIX_SPAWN_DUP2, _PARKED + target, target) for _, target in moves]
        actions += [(os.POSIX_SPAWN_CLOSE, _PARKED + target) for _, target in moves]
        return os.posix_spawn(self._bubblewrap, self._argv, {}, file_actions=actions)


def _memfd(content: bytes) -> int:
    fd = os.memfd_create("bench", os.MFD_CLOEXEC)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _single(run: Run) -> float:
    fds = run.prepare()
    began = time.perf_counter()
    pid = run.spawn(fds)
    _, status, _ = os.wait4(pid, 0)
    took = time.perf_counter() - began
    _close(fds)
    _check(status)
    return took


def _many(run: Run, count: int, concurrency: int) -> float:
    running: dict[int, list[int]] = {}
    left, began = count, time.perf_counter()
    while left or running:
        while left and len(running) < concurrency:
            fds = run.prepare()
            running[run.spawn(fds)] = fds
            left -= 1
        pid, status, _ = os.wait4(-1, 0)
        _close(running.pop(pid))
        _check(status)
    return time.perf_counter() - began


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"raw bubblewrap ended with status {status}")


def become(setup: Setup) -> None:
    from coworkd.system import namespaces

    kinds = {"mnt": namespaces.CLONE_NEWNS, "net": namespaces.CLONE_NEWNET}
    fds = {name: os.open(f"/proc/{setup.monitor_pid}/ns/{name}", os.O_RDONLY) for name in kinds}
    for name, kind in kinds.items():
        namespaces.setns(fds[name], kind)
        os.close(fds[name])
    os.setgroups([])
    os.setresgid(setup.gid, setup.gid, setup.gid)
    os.setresuid(setup.uid, setup.uid, setup.uid)


def main() -> None:
    setup = msgspec.json.decode(sys.stdin.buffer.readline(), type=Setup)
    become(setup)
    run = Run(setup)
    for line in sys.stdin.buffer:
        verb, *numbers = line.split()
        took = _single(run) if verb == b"single" else _many(run, *map(int, numbers))
        print(took, flush=True)


if __name__ == "__main__":
    main()
