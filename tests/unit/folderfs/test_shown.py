import os
from pathlib import Path

import pytest

from coworkd.folderfs.fuse_words import ATTR, ATTR_HEAD, ENTRY_HEAD
from coworkd.folderfs.shown import Shown, compose_device


def test_a_file_is_shown_as_the_sessions(source: Path) -> None:
    os.utime(source / "letter", ns=(-1, 1_500_000_000))
    found = os.stat(source / "letter")
    attr = ATTR.unpack(Shown(7, 8).compose_attr(found))
    assert attr[:2] == (found.st_ino, 10)
    assert attr[3:5] == (2**64 - 1, 1)
    assert attr[6:8] == (999_999_999, 500_000_000)
    assert attr[9] == found.st_mode
    assert attr[11:13] == (7, 8)


def test_answers_begin_with_how_long_they_hold(source: Path) -> None:
    found = os.stat(source)
    shown = Shown(7, 8)
    assert shown.compose_entry(5, found)[:40] == ENTRY_HEAD.pack(5, 0, 1, 1, 0, 0)
    assert shown.compose_attr_out(found)[:16] == ATTR_HEAD.pack(1, 0, 0)


@pytest.mark.parametrize(("device", "number"), [((1, 3), 0x103), ((8, 0x12345), 0x12300845)])
def test_device_numbers_are_the_kernels(device: tuple[int, int], number: int) -> None:
    assert compose_device(os.makedev(*device)) == number
