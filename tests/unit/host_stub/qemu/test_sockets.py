from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from host_stub.qemu.sockets import PATH_LIMIT_BYTES, check_length, clear_leftover, listen_at
from host_stub.words import Trouble


def code_of(path: Path) -> str:
    with pytest.raises(Trouble) as caught:
        clear_leftover(path)
    return caught.value.code


def test_nothing_there_is_fine(tmp_path: Path) -> None:
    clear_leftover(tmp_path / "a.sock")


def test_a_socket_nobody_answers_at_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    clear_leftover(path)
    assert not path.exists()


def test_a_socket_somebody_answers_at_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with listen_at(path):
        assert code_of(path) == "socket_taken"
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.sock"
    path.touch() if kind == "file" else path.mkdir()
    assert code_of(path) == "socket_taken"
    assert path.exists()


def test_a_path_too_long_is_told(tmp_path: Path) -> None:
    assert code_of(tmp_path / ("x" * PATH_LIMIT_BYTES)) == "path_too_long"
    check_length(Path("/" + "x" * (PATH_LIMIT_BYTES - 1)))


def test_a_listener_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with listen_at(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))


def test_a_listener_in_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="taken"):
        listen_at(tmp_path / "none" / "a.sock")
