from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coworkd.workers.measure_walk import Walk, open_below, open_top
from tests.unit.workers.trees import deep_tree, make_deep, write


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        yield fd
        assert len(os.listdir("/proc/self/fd")) == before, "every directory is closed again"
    finally:
        os.close(fd)


def test_what_lies_in_a_directory_is_told_before_it(tmp_path: Path) -> None:
    write(tmp_path / "a/b/c")
    write(tmp_path / "a/d")
    with opened(tmp_path) as fd:
        told = [(entry.path, entry.is_directory) for entry in Walk(fd)]
    places = {path: place for place, (path, _) in enumerate(told)}
    assert dict(told) == {b"a": True, b"a/b": True, b"a/b/c": False, b"a/d": False}
    assert places[b"a/b/c"] < places[b"a/b"] < places[b"a"]
    assert places[b"a/d"] < places[b"a"]


def test_a_tree_deeper_than_any_path_is_told_whole_with_few_descriptors(tmp_path: Path) -> None:
    most = 0
    with deep_tree(tmp_path, 3000), opened(tmp_path) as fd:
        paths, before = set(), len(os.listdir("/proc/self/fd"))
        for entry in Walk(fd, depth=16):
            paths.add(entry.path)
            if entry.name == "leaf":
                most = len(os.listdir("/proc/self/fd"))
    assert len(paths) == 3001
    assert b"d/" * 3000 + b"leaf" in paths
    assert most - before < 40


def test_a_directory_whose_content_comes_later_says_so(tmp_path: Path) -> None:
    make_deep(tmp_path, 3)
    with opened(tmp_path) as fd:
        told = [(entry.path, entry.read) for entry in Walk(fd, depth=2)]
    assert told == [
        (b"d/d", False),
        (b"d", True),
        (b"d/d/d/leaf", True),
        (b"d/d/d", True),
        (b"d/d", True),
    ]


def test_links_are_told_and_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/secret").parent
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "up").symlink_to("..")
    with opened(inside) as fd:
        assert sorted(entry.path for entry in Walk(fd)) == [b"link", b"up"]


def test_odd_names_come_back_as_they_are(tmp_path: Path) -> None:
    name = b"\xff\n'\x1b[2J"
    os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    with opened(tmp_path) as fd:
        assert [entry.path for entry in Walk(fd)] == [name]


def test_the_walk_ends_at_its_deadline_and_says_so(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / str(number)).touch()
    times = iter(range(100))
    with opened(tmp_path) as fd:
        walk = Walk(fd, deadline=2, clock=lambda: next(times))
        told = len(list(walk))
    assert not walk.complete
    assert 64 <= told < 300


def test_what_vanishes_or_is_swapped_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = write(tmp_path / "outside/secret").parent
    write(tmp_path / "inside/a/kept")
    write(tmp_path / "inside/b/kept")
    real = open_below
    swapped: list[bytes] = []

    def swap(directory: int, path: bytes) -> int | None:
        if not swapped:
            swapped.append(path)
            os.rename(tmp_path / "inside" / os.fsdecode(path), tmp_path / "moved")
            (tmp_path / "inside" / os.fsdecode(path)).symlink_to(outside)
        return real(directory, path)

    monkeypatch.setattr("coworkd.workers.measure_walk.open_below", swap)
    with opened(tmp_path / "inside") as fd:
        told = {entry.path for entry in Walk(fd)}
    (gone,) = swapped
    assert told == {b"a", b"b", b"a/kept", b"b/kept"} - {gone + b"/kept"}


def test_a_top_is_opened_below_its_root_alone(tmp_path: Path) -> None:
    write(tmp_path / "root/home/file")
    (tmp_path / "root/link").symlink_to("home")
    (tmp_path / "root/out").symlink_to(tmp_path)
    root = os.fsencode(tmp_path / "root")
    for path in (b"link", b"out", b"../root/home", b"missing", b"home/file"):
        assert open_top(root, path) is None, path
    top = open_top(root, b"home")
    assert top is not None
    assert os.listdir(top) == ["file"]
    os.close(top)


def test_a_root_that_is_not_there_has_nothing_in_it_and_one_that_is_none_is_told(tmp_path: Path) -> None:
    assert open_top(os.fsencode(tmp_path / "none"), b"home") is None
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        open_top(os.fsencode(tmp_path / "file"), b"home")
