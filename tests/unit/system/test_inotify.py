"""`system.inotify`: watching a real directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.system import inotify


@pytest.fixture
def instance() -> Iterator[int]:
    fd = inotify.open_inotify()
    yield fd
    os.close(fd)


def _events(instance: int) -> list[tuple[int, bytes]]:
    try:
        return [(event.mask, event.name) for event in inotify.parse_events(os.read(instance, 65536))]
    except BlockingIOError:
        return []


def test_changes_in_a_directory_are_seen(instance: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    watch = inotify.add_watch(instance, fd)
    assert inotify.add_watch(instance, fd) == watch
    (tmp_path / "a").write_text("x")
    (tmp_path / "d").mkdir()
    (tmp_path / "a").rename(tmp_path / "b")
    assert _events(instance) == [
        (inotify.IN_CREATE, b"a"),
        (inotify.IN_CLOSE_WRITE, b"a"),
        (inotify.IN_CREATE | inotify.IN_ISDIR, b"d"),
        (inotify.IN_MOVED_FROM, b"a"),
        (inotify.IN_MOVED_TO, b"b"),
    ]
    inotify.remove_watch(instance, watch)
    (tmp_path / "c").write_text("x")
    assert _events(instance) == [(inotify.IN_IGNORED, b"")]
    with pytest.raises(OSError, match="Invalid argument"):
        inotify.remove_watch(instance, watch)
    os.close(fd)


def test_both_halves_of_a_rename_have_one_cookie(instance: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "a").touch()
    inotify.add_watch(instance, fd)
    (tmp_path / "a").rename(tmp_path / "b")
    one, other = inotify.parse_events(os.read(instance, 65536))
    assert one.cookie == other.cookie != 0
    os.close(fd)


def test_a_file_is_no_directory(instance: int, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        inotify.add_watch(instance, fd)
    os.close(fd)
