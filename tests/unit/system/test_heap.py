"""`system.heap`: threads leave no arenas behind."""

from __future__ import annotations

import subprocess
import sys

_COUNT = """
import threading, re
from coworkd.system import heap

def arenas():
    # An arena is a reserved part of memory that begins at a multiple of 64 MiB.
    lines = open("/proc/self/maps").read().splitlines()
    return sum(int(line.split("-")[0], 16) % (1 << 26) == 0 and line.endswith(" 0 ") for line in lines)

assert not {told} or heap.keep_one_arena()
kept = []
threads = [threading.Thread(target=lambda: kept.append(bytes(10_000))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(arenas())
"""


def count(*, told: bool) -> int:
    script = _COUNT.replace("{told}", str(told))
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def test_threads_share_the_first_ones_arena_once_they_are_told_to() -> None:
    assert count(told=False) > 0
    assert count(told=True) == 0
