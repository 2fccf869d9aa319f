"""A launcher in a mount namespace of its own, somebody else's source, and who uses it: a shell that lives on, shares that hang."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from coworkd.model import launch
from tests.root.launcher_talk import Started, Talk, open_launcher, session_request, spawn_request
from tests.root.live import children_of

ROOT = Path(__file__).resolve().parent.parent.parent
PRIVATE = ("unshare", "--mount", "--propagation", "private", "--")
OWNER = 4321
"""Nobody of this machine's: who owns the sources."""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    """In a mount namespace of its own, for sources that are mounts."""
    tmp_path.chmod(0o755)
    with open_launcher(tmp_path, below=PRIVATE) as started:
        yield started
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def talk(launcher: Started) -> Talk:
    talk = launcher.ready()
    assert isinstance(talk.ask(session_request(launcher.directory / "home")), launch.Opened)
    return talk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir(mode=0o700)
    (made / "kept").write_text("the user's")
    for path in (made, made / "kept"):
        os.chown(path, OWNER, OWNER)
    return made


def mounted(talk: Talk, request: launch.MountFolder) -> launch.FolderMounted:
    answer = talk.ask(request)
    assert isinstance(answer, launch.FolderMounted), answer
    return answer


def refused(talk: Talk, request: launch.Request) -> launch.Refused:
    answer = talk.ask(request)
    assert isinstance(answer, launch.Refused), answer
    return answer


def unmounted(talk: Talk, name: str = "work", *, lazy: bool = True) -> launch.FolderUnmounted:
    answer = talk.ask(launch.UnmountFolder(id=0, session="bob", name=name, lazy=lazy))
    assert isinstance(answer, launch.FolderUnmounted), answer
    return answer


def run(talk: Talk, line: str) -> str:
    """What a shell in the session prints for `line`."""
    exited, output = talk.run(spawn_request(["/bin/sh", "-c", f"exec 2>&1; cd /sessions/bob/mnt; {line}"]))
    assert isinstance(exited, launch.Exited), exited
    assert isinstance(talk.ask(launch.Forget(id=0, process="p1")), launch.Done)
    return output.decode()


class Shell:
    """A command of the session's that lives on: a shell, asked line by line."""

    def __init__(self, talk: Talk) -> None:
        spawned = talk.start(spawn_request(["/bin/sh"], process="shell", stdin=True))
        fds = dict(zip(spawned.fds, talk.fds[-len(spawned.fds) :], strict=True))
        del talk.fds[-len(spawned.fds) :]
        self._stdin: IO[bytes] = os.fdopen(fds.pop("stdin"), "wb", buffering=0)
        self._stdout: IO[bytes] = os.fdopen(fds.pop("stdout"), "rb")
        for fd in fds.values():
            os.close(fd)
        self._talk = talk
        self.ask("cd /sessions/bob/mnt; exec 2>&1")

    def ask(self, line: str) -> str:
        self._stdin.write(f"{line}\necho; echo END\n".encode())
        said = []
        while (read := self._stdout.readline()) not in (b"END\n", b""):
            said.append(read.decode())
        return "".join(said).strip()

    def end(self) -> None:
        self._talk.ask(launch.Kill(id=0, process="shell"))
        self._talk.wait(launch.Exited)
        self._talk.ask(launch.Forget(id=0, process="shell"))
        self._stdin.close()
        self._stdout.close()


@contextlib.contextmanager
def shell_in(talk: Talk) -> Iterator[Shell]:
    shell = Shell(talk)
    try:
        yield shell
    finally:
        shell.end()


def launcher_pid(started: Started) -> int:
    (pid,) = children_of(started.child.pid)
    return pid


def servers(started: Started) -> list[int]:
    """What serves folders."""
    return [pid for pid in children_of(launcher_pid(started)) if name_of(pid) == "coworkd-fs"]


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def status_of(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise AssertionError(f"no {key}")


def enter(started: Started, *argv: str) -> list[str]:
    """`argv` in the launcher's mount namespace."""
    return ["nsenter", "--target", str(started.child.pid), "--mount", f"--wd={ROOT}", "--", *argv]


class Share:
    """A share on `directory`: an empty directory until it is told to hang, or one that answers with an errno."""

    def __init__(self, started: Started, directory: Path, number: int = 0) -> None:
        directory.mkdir(exist_ok=True)
        words = enter(started, sys.executable, "-m", "tests.root.share_server", str(directory), str(number))
        self._server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def hang(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(b"hang\n")

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._server.wait(60)
