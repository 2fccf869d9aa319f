from __future__ import annotations

import os
import pty
import termios
from pathlib import Path

import pytest

from coworkd.system.serial_port import open_serial_port


def test_port_is_raw_and_does_not_block_or_leak() -> None:
    host, guest = pty.openpty()
    fd = open_serial_port(os.ttyname(guest))
    try:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        assert not termios.tcgetattr(fd)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        os.write(host, b"\x03\x04\n\r")
        assert os.read(fd, 99) == b"\x03\x04\n\r"
    finally:
        for each in (fd, host, guest):
            os.close(each)


def test_port_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_serial_port(str(tmp_path / "none"))
