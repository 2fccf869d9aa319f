"""Trees for the tests of workers: deep ones are made step by step, since no path may be that long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coworkd.system.remove_tree import remove_tree


@contextmanager
def deep_tree(top: Path, levels: int) -> Iterator[None]:
    """`make_deep` for the block; removed at its end, which pytest could not."""
    make_deep(top, levels)
    try:
        yield
    finally:
        remove_tree(str(top / "d"))


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


def write(path: Path, data: bytes = b"x") -> Path:
    """A file, with what is above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
