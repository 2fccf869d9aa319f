from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coworkd.cli import launcher_start
from coworkd.cli.launcher_start import ensure_launcher, launcher_command
from coworkd.model.errors import Unavailable


def test_the_launcher_starts_without_site_packages() -> None:
    command = launcher_command([])
    assert command[1:3] == ["-I", "-S"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "coworkd-launcher --socket PATH" in done.stderr
    assert "Traceback" not in done.stderr


def ensure(directory: Path) -> str:
    return ensure_launcher(runtime_dir=str(directory), bubblewrap="/usr/bin/bwrap", cgroup="/cg", linger_s=None)


def test_a_launcher_that_answers_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(arguments: list[str]) -> list[str]:
        raise AssertionError(arguments)

    monkeypatch.setattr(launcher_start, "launcher_command", refuse)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "launcher.sock"))
        listener.listen()
        assert ensure(tmp_path) == str(tmp_path / "launcher.sock")


def stand_in(monkeypatch: pytest.MonkeyPatch, program: str) -> list[list[str]]:
    """Have `program` run in the launcher's place; what it would have been given is told."""
    given: list[list[str]] = []

    def command(arguments: list[str]) -> list[str]:
        given.append(arguments)
        return [sys.executable, "-I", "-S", "-c", program, *arguments]

    monkeypatch.setattr(launcher_start, "launcher_command", command)
    return given


def test_a_launcher_is_started_over_a_socket_that_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "launcher.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    given = stand_in(monkeypatch, "import sys; open(sys.argv[2], 'x')")
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(command, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    assert ensure(tmp_path) == str(path)
    assert started[0].wait(60) == 0
    assert given == [
        ["--socket", str(path), "--base", str(tmp_path / "base"), "--bubblewrap", "/usr/bin/bwrap", "--cgroup", "/cg"]
    ]
    assert (tmp_path / "base").is_dir()


def test_a_launcher_that_ends_at_once_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(Unavailable, match="status 3"):
        ensure(tmp_path)


SLOW = """\
import os, signal, sys
open(sys.argv[4] + "/pid", "w").write(str(os.getpid()))
signal.pause()
"""


def test_a_launcher_that_does_not_come_up_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, SLOW)
    monkeypatch.setattr(launcher_start, "START_TIMEOUT_S", 0.5)
    with pytest.raises(Unavailable, match="did not come up"):
        ensure(tmp_path)
    pid_file = tmp_path / "base" / "pid"
    assert not pid_file.exists() or not os.path.exists(f"/proc/{pid_file.read_text()}")
