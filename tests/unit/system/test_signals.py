"""In a child of its own: dispositions belong to a whole process."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ctypes, os, signal
from coworkd.system import signals, libc
ignore = (1).to_bytes(8, "little") + bytes(24)
for number in (signal.SIGHUP, signal.SIGUSR1, 32, 33):
    libc.syscall(signals._SYS_RT_SIGACTION, number, ignore, None, 8)
def ignored():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
before = ignored()
signals.reset_all()
print(bin(before).count("1") >= 4, ignored())
"""


def test_reset_all_reaches_the_signals_python_has_no_name_for() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "0"]
