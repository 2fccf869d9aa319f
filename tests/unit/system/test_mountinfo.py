"""/proc/self/mountinfo."""

from __future__ import annotations

import os

from coworkd.system.mountinfo import mounted_at, parse_mounts, read_mounts

LINES = (
    rb"36 35 98:0 /mnt1 /a\040place rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue",
    rb"37 35 7:260 / /s\134x rw,nosuid - ext4 /dev/loop4 ro,emergency_ro",
    rb"38 35 0:44 / /a\040place ro - tmpfs tmp\012fs rw",
)


def test_a_line_is_parsed_with_any_number_of_optional_fields() -> None:
    first, second, third = parse_mounts(LINES)
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


def test_this_machine_has_a_root() -> None:
    assert mounted_at(b"/", read_mounts()) is not None
