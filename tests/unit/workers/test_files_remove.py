import errno
import os
import shutil
from pathlib import Path

import pytest

from coworkd.model import files as words
from coworkd.system.openat2 import openat2
from coworkd.workers import files_remove
from coworkd.workers.files_remove import remove_some


def remove(path: Path, *, recursive: bool = True, again: bool = False) -> words.SomeRemoved | words.FileFault:
    return remove_some(words.RemoveSome(id=1, path=os.fsencode(path), recursive=recursive, again=again))


def test_a_file_and_a_link_go_and_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/it").touch()
    (tmp_path / "link").symlink_to("keep")
    (tmp_path / "file").touch()
    assert remove(tmp_path / "link") == words.SomeRemoved(id=1, entries=1, more=False)
    assert remove(tmp_path / "file", recursive=False) == words.SomeRemoved(id=1, entries=1, more=False)
    assert (tmp_path / "keep/it").exists()


def test_a_directory_with_something_in_it_wants_recursive(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty") as caught:
        remove(tmp_path / "d", recursive=False)
    assert caught.value.errno == errno.ENOTEMPTY
    assert remove(tmp_path / "d/e", recursive=False) == words.SomeRemoved(id=1, entries=1, more=False)


def test_a_tree_goes_with_all_in_it_and_links_out_of_it_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").touch()
    for number in range(50):
        (tmp_path / f"tree/{number}/deep").mkdir(parents=True)
        (tmp_path / f"tree/{number}/deep/file").touch()
        (tmp_path / f"tree/{number}/out").symlink_to(tmp_path / "outside")
    answer = remove(tmp_path / "tree")
    assert answer == words.SomeRemoved(id=1, entries=50 * 4 + 1, more=False)
    assert (tmp_path / "outside/keep").exists()
    assert not (tmp_path / "tree").exists()


def test_a_tree_deeper_than_any_path_goes(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    entries = 0
    answer = remove(tmp_path / "deeper")
    while isinstance(answer, words.SomeRemoved) and answer.more:
        entries += answer.entries
        answer = remove(tmp_path / "deeper", again=True)
    assert isinstance(answer, words.SomeRemoved)
    assert entries + answer.entries == 3000
    assert os.listdir(top) == []
    os.close(top)


def test_a_slice_ends_after_its_time_and_has_removed_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(files_remove, "SLICE_S", -1.0)
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/f").touch()
    told = [remove(tmp_path / "d", again=bool(number)) for number in range(3)]
    assert told == [
        words.SomeRemoved(id=1, entries=1, more=True),
        words.SomeRemoved(id=1, entries=1, more=True),
        words.SomeRemoved(id=1, entries=1, more=False),
    ]


def test_nothing_there_is_told_unless_it_was_there_before(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove(tmp_path / "none")
    assert remove(tmp_path / "none", again=True) == words.SomeRemoved(id=1, entries=0, more=False)


def test_the_first_entry_that_may_not_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/user's").touch()
    (tmp_path / "d/e/ours").touch()
    really = os.unlink

    def guarded(path: object, **options: object) -> None:
        if path == b"user's":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        really(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", guarded)
    answer = remove(tmp_path / "d")
    assert isinstance(answer, words.FileFault)
    assert (answer.errno, answer.path) == (errno.EPERM, os.fsencode(tmp_path / "d/e/user's"))
    assert answer.entries in (0, 1)


def test_a_directory_that_may_not_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d/e").mkdir(parents=True)

    def guarded(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "rmdir", guarded)
    answer = remove(tmp_path / "d")
    assert isinstance(answer, words.FileFault)
    assert answer.path == os.fsencode(tmp_path / "d/e")


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/it").touch()
    (tmp_path / "d/e").mkdir(parents=True)
    really = openat2

    def swap_then_open(directory: int, name: bytes, flags: int, **options: int) -> int:
        if name == b"e":
            (tmp_path / "d/e").rmdir()
            (tmp_path / "d/e").symlink_to(tmp_path / "keep")
        return really(directory, name, flags, **options)

    monkeypatch.setattr(files_remove, "openat2", swap_then_open)
    answer = remove(tmp_path / "d")
    assert isinstance(answer, words.FileFault)
    assert (tmp_path / "keep/it").exists()


def test_a_directory_that_is_moved_away_meanwhile_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """`..` of what was moved is elsewhere: the walk must not go on there."""
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/it").touch()
    (tmp_path / "d/e").mkdir(parents=True)
    really = files_remove._Removal._empty_of_files

    def move_then_look(self: object, place: object, above: list[bytes]) -> bytes | None:
        if above == [b"e"] and (tmp_path / "d/e").exists():
            os.rename(tmp_path / "d/e", tmp_path / "keep/e")
        return really(self, place, above)  # type: ignore[arg-type]

    monkeypatch.setattr(files_remove._Removal, "_empty_of_files", move_then_look)
    with pytest.raises(OSError, match="moved") as caught:
        remove(tmp_path / "d")
    assert caught.value.errno == errno.ESTALE
    assert (tmp_path / "keep/it").exists()


def test_descriptors_are_all_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "d/e/f").mkdir(parents=True)
    remove(tmp_path / "d")
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        remove(tmp_path / "d")
    assert len(os.listdir("/proc/self/fd")) == before
