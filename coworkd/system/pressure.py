"""Pressure stall information (PSI): how much of the time tasks waited for memory, processors or disks, of the guest or of one cgroup.

A file has a line `some` (a task waited) and a line `full` (all did, so nothing was done), each with averages in per cent over 10, 60 and
300 seconds. What is written to it is a trigger of that one open file: the kernel tells (POLLPRI) when tasks waited for longer than that
within a window, once a window. A window of two seconds, or a multiple, is what the kernel takes of anybody.

Source: Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import errno
import os

GUEST = "/proc/pressure"
WINDOW_US = 2_000_000
_READ_BYTES = 4096


def open_guest(kind: str) -> int:
    """The file of the whole guest. Raises `OSError` where the kernel has no PSI."""
    return os.open(f"{GUEST}/{kind}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)


def arm(fd: int, stall_us: int) -> None:
    """Have the kernel tell when some task waited for so long within `WINDOW_US`; a file that has a trigger keeps it. Raises `OSError`."""
    try:
        os.write(fd, b"some %d %d\0" % (stall_us, WINDOW_US))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def read_averages(fd: int) -> dict[str, float]:
    """`some` and `full` → per cent of the last ten seconds. Raises `OSError`."""
    return parse_averages(os.pread(fd, _READ_BYTES, 0))


def parse_averages(data: bytes) -> dict[str, float]:
    """The same, of what the file holds; a line that is none is passed over."""
    found: dict[str, float] = {}
    for line in data.decode(errors="replace").splitlines():
        level, *words = line.split() or [""]
        for word in words:
            name, _, value = word.partition("=")
            if name == "avg10" and value.replace(".", "", 1).isdecimal():
                found[level] = float(value)
    return found
