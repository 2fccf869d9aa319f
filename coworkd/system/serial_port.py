"""A virtio-serial port as a descriptor: raw, non-blocking, close-on-exec.

A port admits one opener at a time (`EBUSY`). While no host has it open, reads give 0 bytes and poll tells a hang-up; both
end by themselves when a host comes. A tty (in tests a pty stands in for the port) is made raw and never becomes the
controlling terminal. Sources: Linux `drivers/char/virtio_console.c`, termios(3).
"""

from __future__ import annotations

import os
import termios
import tty


def open_serial_port(path: str) -> int:
    """Return the descriptor; the caller closes it. Raises `OSError`."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if os.isatty(fd):
            tty.setraw(fd, termios.TCSANOW)
    except BaseException:
        os.close(fd)
        raise
    return fd
