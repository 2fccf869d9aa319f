"""Trees for the tests of workers: deep ones are made step by step, since no path may be that long."""

from __future__ import annotations

import os
from pathlib import Path


def make_deep(top: Path, levels: int, *, leaf: bytes = b"x") -> None:
    """`levels` directories `d` in each other, with a file `leaf` in the last."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(file, leaf)
    os.close(file)
    os.close(fd)


def write(path: Path, data: bytes = b"x", *, age_s: float = 0, now: float = 0) -> Path:
    """A file, with what is above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
