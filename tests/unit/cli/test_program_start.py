from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from coworkd.cli.program_start import answers, program_command, start_program
from coworkd.model.errors import Unavailable


def test_answers_tells_a_listener_from_what_it_left(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert not answers(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        assert not answers(path)
        listener.listen()
        assert answers(path)
    assert not answers(path)


def test_one_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        assert [answers(path) for _ in range(4)] == [True] * 4


def test_a_program_has_no_site_packages_but_those_named() -> None:
    command = program_command("launcher", ["--x"])
    assert command[0] == sys.executable
    assert command[1:3] == ["-I", "-S"]
    assert "coworkd.launcher.__main__" in command[4]
    assert command[-1] == "--x"


def test_a_dead_socket_is_no_sign_of_life(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    with pytest.raises(Unavailable, match="the thing ended at once with status 5"):
        start_program("the thing", [sys.executable, "-I", "-S", "-c", "raise SystemExit(5)"], str(path))
