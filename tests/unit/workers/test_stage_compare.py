from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.workers.stage_compare import CHUNK_BYTES, content_hash, end_of_data, next_data, same_content
from tests.unit.workers.staged_folder import no_step

Open = Callable[[bytes, int], int]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Open]:
    fds: list[int] = []

    def make(data: bytes, offset: int = 0) -> int:
        path = tmp_path / str(len(fds))
        with path.open("wb") as file:
            file.seek(offset)
            file.write(data)
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1]

    yield make
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("place", [0, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES])
def test_one_byte_makes_a_difference(made: Open, place: int) -> None:
    data = bytearray(b"x" * (2 * CHUNK_BYTES + 1))
    one = made(bytes(data), 0)
    assert same_content(one, made(bytes(data), 0), len(data), no_step)
    data[place] = 0
    assert not same_content(one, made(bytes(data), 0), len(data), no_step)


def test_a_hole_is_as_good_as_zeros(made: Open) -> None:
    assert same_content(made(b"end", 1 << 20), made(bytes(1 << 20) + b"end", 0), (1 << 20) + 3, no_step)
    assert not same_content(
        made(b"end", 1 << 20), made(b"x" + bytes((1 << 20) - 1) + b"end", 0), (1 << 20) + 3, no_step
    )


def test_what_is_a_hole_in_both_is_not_read(made: Open) -> None:
    steps: list[bytes] = []
    assert same_content(made(b"end", 1 << 39), made(b"end", 1 << 39), (1 << 39) + 3, steps.append)
    assert len(steps) == 1


def test_data_is_found_behind_a_hole(made: Open) -> None:
    fd = made(b"end", 1 << 20)
    size = (1 << 20) + 3
    assert (next_data(fd, 0, size), end_of_data(fd, 1 << 20, size), next_data(fd, size, size)) == (1 << 20, size, size)


def test_the_hash_is_that_of_the_content(made: Open) -> None:
    data = b"x" * (CHUNK_BYTES + 5)
    assert content_hash(made(data, 0), len(data), no_step) == hashlib.sha256(data).digest()


def test_a_file_that_became_shorter_is_hashed_to_its_end(made: Open) -> None:
    assert content_hash(made(b"abc", 0), 100, no_step) == hashlib.sha256(b"abc").digest()
