"""A session in which a sandbox waits, and what is asked of it: the launcher for real, driven over its own socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from coworkd.model import launch
from coworkd.model.limits import CgroupLimits
from tests.root.launcher_talk import Started, Talk, spawn_request
from tests.root.live import wait_until


class House:
    """A session `bob`, in which commands are run on purpose in a sandbox that waited, or in one of their own."""

    def __init__(self, launcher: Started, talk: Talk) -> None:
        self.launcher = launcher
        self.talk = talk
        self._count = 0

    @property
    def counts(self) -> launch.WarmCounts:
        counts = self.talk.ask(launch.CountWarm(id=0))
        assert isinstance(counts, launch.WarmCounts)
        return counts

    def request(self, *argv: str, warm: int = 1, **fields: Any) -> launch.Spawn:
        self._count += 1
        known = {"process": f"p{self._count}", "limits": CgroupLimits(), **fields}
        return spawn_request(argv, warm=warm, **known)

    def cold(self, *argv: str, **fields: Any) -> tuple[Any, bytes]:
        """Run in a sandbox of its own, where none may wait."""
        before = self.counts.taken
        done = self.run(self.request(*argv, warm=0, **fields))
        assert self.counts.taken == before
        return done

    def warm(self, *argv: str, **fields: Any) -> tuple[Any, bytes]:
        """Run in one that waits."""
        self.make_wait(**{name: value for name, value in fields.items() if name in ("rlimits", "filters")})
        before = self.counts.taken
        done = self.run(self.request(*argv, **fields))
        assert self.counts.taken == before + 1
        return done

    def beside(self, *argv: str) -> bytes:
        """The output of a command that leaves the one that waits as it is."""
        return self.run(self.request(*argv, limits=CgroupLimits(memory_max_bytes=16 << 20)))[1]

    def make_wait(self, **fields: Any) -> None:
        """Have one that is ready."""
        if fields or not self.counts.waiting:
            self.run(self.request("true", **fields))
            wait_until(lambda: self.counts.waiting == 1, "a sandbox waits")

    def run(self, request: launch.Spawn) -> tuple[Any, bytes]:
        """Its last notice, and all that it has put out."""
        spawned = self.talk.ask(request)
        assert isinstance(spawned, launch.Spawned), spawned
        return self.let_in(request, spawned)

    def let_in(self, request: launch.Spawn, spawned: launch.Spawned) -> tuple[Any, bytes]:
        """From its gate to its end."""
        output = self.talk.take(spawned, "stdout" if request.tty is None else "tty")
        self.talk.let_in(request.process)
        said = read_all(output) if request.tty is None else read_terminal(output)
        ended = self.talk.wait(launch.Exited, launch.StartError)
        self.talk.heard = [notice for notice in self.talk.heard if not isinstance(notice, launch.Started)]
        self.talk.ask(launch.Forget(id=0, process=request.process))
        return ended, said

    def waiting_pids(self) -> tuple[int, int, int]:
        """Monitor, init and shim of the one that waits."""
        self.make_wait()
        monitor = next(pid for pid in children(launcher_pid(self.launcher)) if b"/proc/self/fd/8" in command_line(pid))
        (init,) = children(monitor)
        (shim,) = children(init)
        return monitor, init, shim


def read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def read_terminal(fd: int) -> bytes:
    """All that a terminal shows, its master coming over `fd`; nothing where none comes."""
    with socket.socket(fileno=fd) as link:
        link.settimeout(60)
        _, fds, _, _ = socket.recv_fds(link, 16, 1)
    said = b""
    for master in fds:
        try:
            while data := os.read(master, 65536):
                said += data
        except OSError:  # EIO: its last user has gone
            pass
        os.close(master)
    return said


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def launcher_pid(launcher: Started) -> int:
    """The launcher is the only child of its guard."""
    return children(launcher.child.pid)[0]
