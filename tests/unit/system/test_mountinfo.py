"""/proc/self/mountinfo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.system.mountinfo import mount_id, mounted_at, parse_mounts, path_in_file_system, read_mounts

LINES = (
    rb"36 35 98:0 /mnt1 /a\040place rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue",
    rb"37 35 7:260 / /s\134x rw,nosuid - ext4 /dev/loop4 ro,emergency_ro",
    rb"38 35 0:44 / /a\040place ro - tmpfs tmp\012fs rw",
)


def test_a_line_is_parsed_with_any_number_of_optional_fields() -> None:
    first, second, third = parse_mounts(LINES)
    assert first.mount_id == 36
    assert (first.device, first.root, first.mount_point) == (os.makedev(98, 0), b"/mnt1", b"/a place")
    assert (first.options, first.kind, first.source) == (("rw", "noatime"), "ext3", b"/dev/root")
    assert first.super_options == ("rw", "errors=continue")
    assert (second.mount_point, second.super_options) == (b"/s\\x", ("ro", "emergency_ro"))
    assert third.source == b"tmp\nfs"


def test_of_two_mounts_on_one_place_the_upper_one_is_there() -> None:
    mounts = parse_mounts(LINES)
    found = mounted_at(b"/a place", mounts)
    assert found is not None
    assert found.kind == "tmpfs"
    assert mounted_at(b"/nowhere", mounts) is None


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/a place", b"/mnt1"), ("/a place/x/y", b"/mnt1/x/y"), ("/a placebo", None), ("/", None), ("/b", None)],
)
def test_a_path_of_the_file_system_is_told_of_one_of_the_machine(path: str, inside: bytes | None) -> None:
    first, *_ = parse_mounts(LINES)
    assert path_in_file_system(path, first) == inside


@pytest.mark.parametrize(("path", "inside"), [("/", b"/"), ("/x", b"/x")])
def test_a_whole_file_system_has_its_own_paths(path: str, inside: bytes) -> None:
    assert path_in_file_system(path, parse_mounts([rb"1 0 8:0 / / rw - ext4 /dev/sda rw"])[0]) == inside


def test_a_descriptor_tells_its_mount(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        number, path = mount_id(fd), os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    entry = next(entry for entry in read_mounts() if entry.mount_id == number)
    assert entry.device == os.stat(tmp_path).st_dev
    assert path_in_file_system(path, entry) is not None


def test_this_machine_has_a_root() -> None:
    assert mounted_at(b"/", read_mounts()) is not None
