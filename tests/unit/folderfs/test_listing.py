import os
from pathlib import Path

import pytest

from coworkd.folderfs.listing import LIMIT_BYTES, list_below
from coworkd.model.folder import ListBelow, Listed


def ask(source: Path, path: bytes, limit: int = 100) -> Listed:
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    try:
        return list_below(fd, ListBelow(id=3, path=path, limit=limit))
    finally:
        os.close(fd)


def test_a_directory_stands_after_what_is_in_it(source: Path) -> None:
    listed = ask(source, b"")
    assert (listed.id, listed.more) == (3, False)
    assert sorted(listed.paths) == [b"kept", b"kept/photo", b"letter"]
    assert listed.paths.index(b"kept/photo") < listed.paths.index(b"kept")
    assert ask(source, b"kept").paths == (b"kept/photo",)


def test_more_than_asked_for_is_said(source: Path) -> None:
    listed = ask(source, b"", 2)
    assert len(listed.paths) == 2
    assert listed.more
    assert ask(source, b"", -5) == Listed(id=3, paths=(), more=True)


@pytest.mark.parametrize("path", [b"..", b"kept/../..", b"/etc", b"letter", b"missing", b"link", b"kept//photo"])
def test_nothing_outside_and_nothing_that_is_no_directory(source: Path, path: bytes) -> None:
    (source / "link").symlink_to("/etc")
    assert ask(source, path) == Listed(id=3, paths=(), more=False)


def test_links_are_not_followed(source: Path) -> None:
    (source / "kept" / "link").symlink_to("/etc")
    assert sorted(ask(source, b"kept").paths) == [b"kept/link", b"kept/photo"]


def test_no_descriptor_stays(source: Path) -> None:
    place = source
    for _ in range(40):
        place /= "d"
        place.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for limit in (5, 100):
        ask(source, b"", limit)
    assert len(os.listdir("/proc/self/fd")) == before


def test_long_names_do_not_make_a_message_that_is_too_long(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(12):
        place = place / ("d" * 200)
        place.mkdir()
    for number in range(2500):
        (place / f"{number:0200}").touch()
    fd = os.open(tmp_path, os.O_PATH)
    listed = list_below(fd, ListBelow(id=1, path=b"", limit=10_000))
    os.close(fd)
    assert listed.more
    assert 1000 < len(listed.paths) < 2500
    assert sum(map(len, listed.paths)) <= LIMIT_BYTES
