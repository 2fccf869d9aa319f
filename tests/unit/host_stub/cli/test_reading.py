"""`logs` and `console`."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from host_stub.bundle import Bundle
from host_stub.cli.main import main
from host_stub.cli.reading import LEAVE, read_more, read_tail, relay


def test_the_last_lines_are_shown_and_cannot_drive_the_terminal(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle.logs / "coworkd.log").write_text("one\ntwo\x1b[31m\nthree\n")
    (bundle.logs / "serial.log").write_bytes(b"\x1b[1mboot\x1b[0m\r\n\r\n")
    assert main(["logs", "--bundle", str(bundle.path), "-n", "2"]) == 0
    assert capsys.readouterr().out == "two\\x1b[31m\nthree\n"
    assert main(["logs", "--bundle", str(bundle.path), "serial"]) == 0
    assert capsys.readouterr().out == "boot\n"


def test_a_log_that_is_not_there_yet_is_told(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "--bundle", str(bundle.path), "egress"]) == 1
    assert "[no_log]" in capsys.readouterr().err


def test_a_log_is_followed_by_whole_lines_and_over_a_new_beginning(tmp_path: Path) -> None:
    path = tmp_path / "coworkd.log"
    assert read_tail(path, 9) == ([], 0)
    path.write_text("one\ntw")
    assert read_more(path, 0) == (4, ["one"])
    path.write_text("one\ntwo\nthr")
    assert read_more(path, 4) == (8, ["two"])
    path.write_text("new\n")
    assert read_more(path, 8) == (4, ["new"])
    assert read_tail(path, 0) == ([], 4)


def test_a_line_without_an_end_stops_nobody_from_following(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.write_bytes(b"z" * (3 << 20) + b"\nlast\n")
    offset, seen = 0, list[str]()
    for _ in range(4):
        offset, lines = read_more(path, offset)
        seen += lines
    assert (offset, seen[-1]) == (path.stat().st_size, "last")
    assert max(map(len, seen)) < 5000


def test_a_machine_without_a_console_is_told(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["console", "--bundle", str(bundle.path)]) == 1
    assert "[not_running]" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [b"ls\n" + LEAVE + b"not sent", b"ls\n"])
def test_the_console_is_joined_both_ways_until_it_is_left_or_ends(typed: bytes) -> None:
    ours, guest = socket.socketpair()
    keyboard, keys = os.pipe()
    screen, drawn = os.pipe()
    with ours, guest:
        joined = threading.Thread(target=relay, args=(ours, keyboard, drawn))
        joined.start()
        guest.sendall(b"login: ")
        assert os.read(screen, 7) == b"login: "
        os.write(keys, typed)
        assert guest.recv(100) == b"ls\n"
        os.close(keys)
        if LEAVE not in typed:
            guest.sendall(b"bye")  # the end of what is typed is not the end of the console
            assert os.read(screen, 3) == b"bye"
            guest.close()
        joined.join(60)
        assert not joined.is_alive()
    for fd in (keyboard, screen, drawn):
        os.close(fd)
