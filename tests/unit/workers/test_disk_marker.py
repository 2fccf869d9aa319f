"""The marker of a format that is under way."""

from __future__ import annotations

import pytest

from coworkd.model.disk import TAIL_BYTES
from coworkd.workers.disk_marker import SECTOR_BYTES, compose_marker, file_system_bytes, is_marker, marker_offset

SIZE = 64 * 1024 * 1024 + 512


def test_a_marker_is_one_sector_and_known_again() -> None:
    assert len(compose_marker(SIZE)) == SECTOR_BYTES
    assert is_marker(compose_marker(SIZE), SIZE)


def test_it_lies_behind_the_file_system_and_on_the_device() -> None:
    assert file_system_bytes(SIZE) % 4096 == 0
    assert file_system_bytes(SIZE) <= marker_offset(SIZE)
    assert marker_offset(SIZE) + SECTOR_BYTES <= SIZE
    assert SIZE - file_system_bytes(SIZE) >= TAIL_BYTES


@pytest.mark.parametrize(
    "sector", [b"", bytes(SECTOR_BYTES), compose_marker(SIZE)[:-1] + b"x", compose_marker(SIZE + 512)]
)
def test_nothing_else_passes_for_one(sector: bytes) -> None:
    assert not is_marker(sector, SIZE)
