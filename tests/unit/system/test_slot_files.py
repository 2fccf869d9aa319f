from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.system.slot_files import HeldFiles


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HeldFiles]:
    held = HeldFiles(str(tmp_path))
    yield held
    held.close()


def test_what_is_written_is_read_and_has_its_mode(files: HeldFiles, tmp_path: Path) -> None:
    files.make_directory("d")
    files.write("d/x", (b"ab", b"", b"c"), 0o755, sync=True)
    files.sync_directory("d")
    files.sync_all()
    assert files.read("d/x", 10) == b"abc"
    assert b"".join(files.chunks("d/x")) == b"abc"
    assert (tmp_path / "d" / "x").stat().st_mode & 0o777 == 0o755
    assert files.entries("d") == [("x", "file", 3)]


def test_one_byte_more_than_the_limit_shows_that_there_is_more(files: HeldFiles) -> None:
    files.write("x", (b"abcdef",), 0o600, sync=False)
    assert files.read("x", 3) == b"abcd"
    assert files.read("x", 6) == b"abcdef"


def test_a_file_is_new_or_it_is_refused(files: HeldFiles) -> None:
    files.write("x", (), 0o600, sync=False)
    with pytest.raises(FileExistsError):
        files.write("x", (), 0o600, sync=False)
    with pytest.raises(FileExistsError):
        files.make_directory("x")


def test_links_are_not_followed(files: HeldFiles, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").symlink_to("real/x")
    for path in ("link/x", "file"):
        with pytest.raises(OSError):
            files.read(path, 10)
    assert [entry.kind for entry in files.entries("")] == ["other", "other", "directory"]
    files.remove("link")
    assert (tmp_path / "real" / "x").exists()


def test_nothing_above_is_reached(files: HeldFiles) -> None:
    with pytest.raises(OSError):
        files.read("../x", 10)


def test_a_fifo_is_not_waited_for(files: HeldFiles, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError):
        files.read("fifo", 10)


def test_a_rename_replaces_a_file(files: HeldFiles) -> None:
    files.write("old", (b"old",), 0o600, sync=False)
    files.write("new", (b"new",), 0o600, sync=False)
    files.rename("new", "old")
    assert files.read("old", 10) == b"new"


def test_removing_takes_all_below_and_minds_nothing_missing(files: HeldFiles) -> None:
    files.make_directory("d")
    files.make_directory("d/e")
    files.write("d/e/x", (), 0o600, sync=False)
    for _ in range(2):
        files.remove("d")
    assert files.entries("") == []
