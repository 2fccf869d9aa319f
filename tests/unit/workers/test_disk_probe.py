"""What is on a device: the judge that doubts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.workers.disk_marker import compose_marker, marker_offset
from coworkd.workers.disk_probe import LEAST_BYTES, describe, probe
from tests.unit.workers.disk_fakes import MIB, FakeDevice, superblock

LABEL = "cowork-sessions"
SIZE = 256 * MIB


def test_zeros_are_blank() -> None:
    assert probe(FakeDevice(SIZE), LABEL).what == "blank"


def test_our_own_is_ours_whatever_blkid_does_not_see() -> None:
    assert probe(FakeDevice(SIZE, {1024: superblock()}, signatures={"TYPE": "ext4"}), LABEL).what == "ours"
    assert probe(FakeDevice(SIZE, {1024: superblock()}), LABEL).what == "ours"


def test_one_without_its_first_superblock_is_ours_by_a_copy() -> None:
    found = probe(FakeDevice(SIZE, {128 * MIB: superblock(group=1)}), LABEL)
    assert (found.what, found.backup) == ("damaged", 128 * MIB)


@pytest.mark.parametrize(
    "copy", [superblock(group=0), superblock(group=1, label="photos"), superblock(group=1, block_bytes=1024)]
)
def test_a_copy_that_is_none_of_ours_makes_it_foreign(copy: bytes) -> None:
    assert probe(FakeDevice(SIZE, {128 * MIB: copy}), LABEL).what == "foreign"


@pytest.mark.parametrize("piece", [{1024: superblock(blocks=99_999)}, {128 * MIB: superblock(blocks=99_999, group=1)}])
def test_one_that_is_larger_than_its_device_was_cut(piece: dict[int, bytes]) -> None:
    assert probe(FakeDevice(SIZE, piece), LABEL).what == "cut"


@pytest.mark.parametrize(
    ("signatures", "said"),
    [
        ({"TYPE": "xfs", "LABEL": "data"}, "xfs signature labelled 'data'"),
        ({"PTTYPE": "gpt"}, "gpt partition table"),
        ({"TYPE": "crypto_LUKS"}, "crypto_LUKS signature"),
        ({"AMBIVALENT": "several"}, "several"),
        ({"SOMETHING": "new"}, "SOMETHING=new"),
    ],
)
def test_any_signature_is_foreign_and_named(signatures: dict[str, str], said: str) -> None:
    found = probe(FakeDevice(SIZE, signatures=signatures), LABEL)
    assert found.what == "foreign"
    assert said in found.detail
    assert said in describe(signatures)


@pytest.mark.parametrize(
    "signatures", [{"PTTYPE": "dos", "TYPE": "ext4"}, {"TYPE": "btrfs"}, {"AMBIVALENT": "several"}]
)
def test_another_signature_over_our_own_is_foreign(signatures: dict[str, str]) -> None:
    assert probe(FakeDevice(SIZE, {1024: superblock()}, signatures=signatures), LABEL).what == "foreign"


def test_an_ext4_of_another_label_is_foreign() -> None:
    found = probe(FakeDevice(SIZE, {1024: superblock(label="photos")}, signatures={"TYPE": "ext4"}), LABEL)
    assert (found.what, found.detail) == ("foreign", "an ext4 file system labelled 'photos'")


@settings(max_examples=60)
@given(st.integers(0, MIB - 1))
def test_one_byte_in_the_first_or_last_megabyte_is_not_blank(offset: int) -> None:
    assert probe(FakeDevice(SIZE, {offset: b"\x01"}), LABEL).what == "foreign"
    found = probe(FakeDevice(SIZE, {SIZE - 1 - offset: b"\x01"}), LABEL)
    assert (found.what, f"byte {SIZE - 1 - offset}" in found.detail) == ("foreign", True)


@settings(max_examples=30)
@given(st.integers(0, SIZE - 2 * MIB))
def test_two_megabytes_anywhere_are_not_blank(offset: int) -> None:
    assert probe(FakeDevice(SIZE, {offset: b"\x01" * (2 * MIB)}), LABEL).what == "foreign"


@pytest.mark.parametrize("place", [0, SIZE - 1, 128 * MIB, marker_offset(SIZE)])
def test_what_cannot_be_read_is_not_blank(place: int) -> None:
    found = probe(FakeDevice(SIZE, broken=(place,)), LABEL)
    assert found.what == "unreadable"
    assert "near byte" in found.detail


def test_what_is_too_small_is_told() -> None:
    assert probe(FakeDevice(LEAST_BYTES - 1), LABEL).what == "small"


def test_a_format_that_did_not_end_is_begun() -> None:
    marker = {marker_offset(SIZE): compose_marker(SIZE)}
    assert probe(FakeDevice(SIZE, {**marker, 4096: b"half of a file system"}), LABEL).what == "begun"
    whole = {**marker, 1024: superblock(mounted_at=0)}
    assert probe(FakeDevice(SIZE, whole, signatures={"TYPE": "ext4"}), LABEL).what == "begun"


@pytest.mark.parametrize("there", [superblock(mounted_at=1), superblock(mounted_at=0, label="photos")])
def test_a_marker_beside_what_was_mounted_or_is_anothers_is_worth_nothing(there: bytes) -> None:
    pieces = {marker_offset(SIZE): compose_marker(SIZE), 1024: there}
    assert probe(FakeDevice(SIZE, pieces, signatures={"TYPE": "ext4"}), LABEL).what in ("ours", "foreign")


@pytest.mark.parametrize(
    "signatures", [{"TYPE": "xfs"}, {"PTTYPE": "gpt"}, {"TYPE": "crypto_LUKS"}, {"AMBIVALENT": "x"}]
)
def test_a_marker_below_what_was_put_on_the_disk_since_is_worth_nothing(signatures: dict[str, str]) -> None:
    pieces = {marker_offset(SIZE): compose_marker(SIZE)}
    assert probe(FakeDevice(SIZE, pieces, signatures=signatures), LABEL).what == "foreign"
    over_ours = {**pieces, 1024: superblock(mounted_at=0)}
    assert probe(FakeDevice(SIZE, over_ours, signatures=signatures), LABEL).what == "foreign"


@pytest.mark.parametrize("size", [SIZE, 4096 * MIB, 3_000_000 * MIB])
@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (128 * MIB, superblock(group=1, label="photos")),
        (8193 * 1024, superblock(group=1, label="photos", block_bytes=1024)),
        (64 * MIB + 64, b"_BHRfS_M"),
        (MIB + 1024, superblock(label="photos")),
        (10 * MIB, b"first partition"),
    ],
)
def test_zeros_over_the_first_bytes_of_another_file_system_do_not_make_it_blank(
    size: int, offset: int, data: bytes
) -> None:
    assert probe(FakeDevice(size, {offset: data}), LABEL).what == "foreign"
