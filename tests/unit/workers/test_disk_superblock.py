"""Reading a superblock and its table by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.workers.disk_superblock import (
    backup_offsets,
    describes_groups,
    groups,
    parse_superblock,
    table_bytes,
)
from tests.unit.workers.disk_fakes import MIB, superblock


def test_what_concerns_us_is_read() -> None:
    found = parse_superblock(superblock(blocks=(1 << 32) + 5, mounted_at=7, group=3, quota=True))
    assert found is not None
    assert (found.label, found.uuid) == ("cowork-sessions", bytes(range(16)).hex())
    assert (found.size_bytes, found.block_bytes) == (((1 << 32) + 5) * 4096, 4096)
    assert (found.mounted_at, found.group, found.quota) == (7, 3, True)


@pytest.mark.parametrize("data", [b"", bytes(1024), superblock()[:1023]])
def test_what_is_none_is_none(data: bytes) -> None:
    assert parse_superblock(data) is None


def test_blocks_of_a_size_there_is_not_are_no_superblock() -> None:
    data = bytearray(superblock())
    struct.pack_into("<I", data, 0x18, 7)
    assert parse_superblock(bytes(data)) is None


def table(count: int) -> bytes:
    one = bytearray(64)
    struct.pack_into("<III", one, 0, 33, 35, 37)
    return bytes(one) * count


def test_a_table_that_points_into_the_file_system_is_sound() -> None:
    assert groups(superblock()) == 2
    assert table_bytes(superblock()) == 128
    assert describes_groups(superblock(), table(2))


@pytest.mark.parametrize(
    "bad", [b"\xa5" * 128, bytes(128), table(1), table(1) + bytes(64), b"", table(1) + b"\xff" * 64]
)
def test_a_table_that_points_elsewhere_or_ends_early_is_not(bad: bytes) -> None:
    assert not describes_groups(superblock(), bad)


def test_copies_are_looked_for_where_the_device_has_room() -> None:
    assert backup_offsets(64 * MIB) == []
    assert backup_offsets(256 * MIB) == [128 * MIB]
    assert backup_offsets(2048 * MIB) == [128 * MIB, 384 * MIB, 640 * MIB, 896 * MIB, 1152 * MIB]


@given(st.binary(min_size=1024, max_size=1024), st.binary(max_size=256))
def test_any_bytes_are_read_without_an_error(data: bytes, rest: bytes) -> None:
    made = data[:0x38] + b"\x53\xef" + data[0x3A:]
    parse_superblock(made)
    if groups(made) < 1000:
        describes_groups(made, rest)
