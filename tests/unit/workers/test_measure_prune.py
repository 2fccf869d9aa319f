from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.measure import PruneTree, TreePruned
from coworkd.workers.measure_prune import prune
from tests.unit.workers.trees import make_deep, write


def pruned(tmp_path: Path, *places: bytes, **fields: Any) -> TreePruned:
    wanted = {
        "id": 3,
        "root": os.fsencode(tmp_path),
        "path": b"home",
        "places": places or (b".cache",),
        "deadline_s": 60.0,
    }
    return prune(PruneTree(**{**wanted, **fields}))


def paths(answer: TreePruned) -> set[bytes]:
    return {entry.path for entry in answer.entries}


def left(tmp_path: Path) -> set[str]:
    return {str(path.relative_to(tmp_path / "home")) for path in (tmp_path / "home").rglob("*")}


def test_all_goes_and_the_place_stays(tmp_path: Path) -> None:
    write(tmp_path / "home/.cache/pip/a/b", b"x" * 9000)
    write(tmp_path / "home/.cache/one", b"x")
    write(tmp_path / "home/kept")
    answer = pruned(tmp_path)
    assert left(tmp_path) == {".cache", "kept"}
    assert paths(answer) == {b".cache/pip", b".cache/one"}
    assert (answer.files, answer.left_out, answer.complete) == (4, 0, True)
    assert sum(entry.size_bytes for entry in answer.entries) == answer.size_bytes >= 9000


def test_a_dry_run_tells_exactly_what_would_go_and_changes_nothing(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"home/.cache/{number % 4}/{number % 5}/{number}", b"x" * 300 * number)
    (tmp_path / "home/.cache/1/link").symlink_to("/usr")
    before = left(tmp_path)
    told = pruned(tmp_path, larger_than_bytes=3000, dry_run=True)
    assert left(tmp_path) == before
    assert pruned(tmp_path, larger_than_bytes=3000) == told
    gone = before - left(tmp_path)
    assert {path.encode() for path in gone} >= paths(told)
    assert len(gone) == told.files == sum(entry.files for entry in told.entries)


def test_only_what_is_old_goes(tmp_path: Path) -> None:
    write(tmp_path / "home/.cache/old/file")
    write(tmp_path / "home/.cache/mixed/old")
    write(tmp_path / "home/.cache/mixed/read")
    long_ago = time.time() - 1000
    for name in ("old/file", "mixed/old", "mixed/read"):
        os.utime(tmp_path / "home/.cache" / name, (long_ago, long_ago))
    # ctime cannot be set: everything was changed just now, so nothing is old at all.
    assert pruned(tmp_path, before=time.time() - 500).entries == ()
    os.utime(tmp_path / "home/.cache/mixed/read", (time.time() + 1000, long_ago))
    answer = pruned(tmp_path, before=time.time() + 500)
    assert paths(answer) == {b".cache/old", b".cache/mixed/old"}
    assert left(tmp_path) == {".cache", ".cache/mixed", ".cache/mixed/read"}


def test_by_size_empty_directories_stay_and_emptied_ones_go(tmp_path: Path) -> None:
    write(tmp_path / "home/.cache/big/file", b"x" * 5000)
    write(tmp_path / "home/.cache/small/file", b"x")
    (tmp_path / "home/.cache/empty").mkdir()
    assert paths(pruned(tmp_path, larger_than_bytes=4000)) == {b".cache/big"}
    assert left(tmp_path) == {".cache", ".cache/small", ".cache/small/file", ".cache/empty"}


def test_links_go_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/kept").parent
    (tmp_path / "home/.cache/sub").mkdir(parents=True)
    (tmp_path / "home/.cache/link").symlink_to(outside)
    (tmp_path / "home/.cache/sub/up").symlink_to("../../..")
    write(tmp_path / "home/work")
    assert pruned(tmp_path).files == 3
    assert left(tmp_path) == {".cache", "work"}
    assert (outside / "kept").exists()


@pytest.mark.parametrize("plant", [".cache", ".npm", "home"])
def test_a_place_that_is_a_link_is_passed_over(tmp_path: Path, plant: str) -> None:
    outside = write(tmp_path / "outside/_cacache/kept").parent.parent
    if plant == "home":
        (tmp_path / "home").symlink_to(outside)
    else:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / plant).symlink_to(outside)
    answer = pruned(tmp_path, b".cache", b".npm/_cacache", b"_cacache")
    assert (answer.files, answer.entries) == (0, ())
    assert (outside / "_cacache/kept").exists()


def test_places_that_are_not_there_are_nothing(tmp_path: Path) -> None:
    assert pruned(tmp_path).files == 0
    (tmp_path / "home").mkdir()
    write(tmp_path / "home/.cache")
    assert pruned(tmp_path).files == 0
    assert left(tmp_path) == {".cache"}


def test_what_cannot_be_deleted_stays_and_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "home/.cache/a/fast")
    write(tmp_path / "home/.cache/a/firm")
    real = os.unlink

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == "firm":
            raise PermissionError(1, "no")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    assert paths(pruned(tmp_path)) == {b".cache/a/fast"}
    assert left(tmp_path) == {".cache", ".cache/a", ".cache/a/firm"}


def test_a_directory_that_somebody_fills_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "home/.cache/a/file")
    real = os.rmdir

    def fill(name: str, *, dir_fd: int) -> None:
        write(tmp_path / "home/.cache/a/new")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", fill)
    assert paths(pruned(tmp_path)) == {b".cache/a/file"}
    assert left(tmp_path) == {".cache", ".cache/a", ".cache/a/new"}


def test_a_deep_tree_goes_in_a_bounded_number_of_turns(tmp_path: Path) -> None:
    (tmp_path / "home/.cache").mkdir(parents=True)
    make_deep(tmp_path / "home/.cache", 600)
    for _ in range(3):
        pruned(tmp_path)
    assert left(tmp_path) == {".cache"}


def test_more_entries_than_are_told_are_counted(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path / f"home/.cache/{number}")
    write(tmp_path / "home/.cache/dir/file")
    answer = pruned(tmp_path, entry_limit=10)
    assert (len(answer.entries), answer.left_out, answer.files) == (10, 41, 52)


def test_names_do_not_make_the_answer_too_long(tmp_path: Path) -> None:
    (tmp_path / "home/.cache").mkdir(parents=True)
    for number in range(8):
        (tmp_path / f"home/.cache/{number}").mkdir()
        make_long(tmp_path / f"home/.cache/{number}", 200)
    (tmp_path / "home/.cache/kept-open").touch()
    answer = pruned(tmp_path, before=1.0, dry_run=True)
    assert answer.entries == ()
    answer = pruned(tmp_path, larger_than_bytes=100, dry_run=True)
    assert answer.files == 8
    assert 0 < len(answer.entries) < 8
    assert len(answer.entries) + answer.left_out == 8
    assert sum(len(entry.path) for entry in answer.entries) <= 256 * 1024


def make_long(top: Path, levels: int) -> None:
    """A path of over 50,000 bytes, with a directory at its end that holds a large file and a small one, so that it stays."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    for name, size in (("large", 1000), ("small", 1)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(file, bytes(size))
        os.close(file)
    os.close(fd)


def test_a_file_of_two_names_frees_its_part(tmp_path: Path) -> None:
    write(tmp_path / "home/kept", b"x" * 100_000)
    (tmp_path / "home/.cache").mkdir()
    os.link(tmp_path / "home/kept", tmp_path / "home/.cache/again")
    assert 0 < pruned(tmp_path).size_bytes < 100_000


def test_what_a_disk_refuses_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "home/.cache/file")

    def fail(name: str, *, dir_fd: int) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OSError, match="I/O error"):
        pruned(tmp_path)
