import errno
import os
from pathlib import Path

import pytest

from coworkd.folderfs.handles import Handles, Listing
from coworkd.folderfs.nodes import Node


def listing(place: Path) -> Listing:
    return Listing(os.open(place, os.O_RDONLY | os.O_DIRECTORY), 10, 20)


def names(found: Listing, offset: int, count: int) -> list[bytes]:
    read = found.read(offset)
    return [entry.name for _, (_, entry) in zip(range(count), read, strict=False)]


def test_a_directory_begins_with_its_dots(source: Path) -> None:
    entries = [(after, entry.name, entry.inode) for after, entry in listing(source).read(0)]
    assert entries[:2] == [(1, b".", 10), (2, b"..", 20)]
    assert {name for _, name, _ in entries} == {b".", b"..", b"letter", b"kept"}
    assert [after for after, _, _ in entries] == [1, 2, 3, 4]


def test_entries_given_out_again_are_the_same_ones(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    found = listing(tmp_path)
    first = names(found, 0, 40)
    (tmp_path / first[20].decode()).unlink()
    assert names(found, 10, 30) == first[10:40]
    rest = names(found, 40, 200)
    assert len({*first, *rest}) == 102
    assert names(found, 0, 200)[:2] == [b".", b".."]


def test_going_back_begins_anew(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    found = listing(tmp_path)
    everything = names(found, 0, 100)
    assert names(found, 52, 10) == []
    assert names(found, 7, 100) == everything[7:]
    assert names(found, 99, 1) == []


def test_kinds_are_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    os.mkfifo(tmp_path / "p")
    assert {entry.name: entry.kind for _, entry in listing(tmp_path).read(2)} == {b"d": 4, b"f": 8, b"l": 10, b"p": 0}


def node_of(place: Path) -> Node:
    return Node(2, None, b"", os.stat(place))


def test_open_files_know_their_node_until_they_are_closed(source: Path) -> None:
    handles, node = Handles(2), node_of(source / "letter")
    fds = [os.open(source / "letter", os.O_RDONLY) for _ in range(2)]
    for fd in fds:
        handles.refuse_if_full()
        handles.open(fd, node, 1)
    assert node.handles == fds
    with pytest.raises(OSError) as caught:
        handles.refuse_if_full()
    assert caught.value.errno == errno.ENFILE
    handles.close(fds[0])
    assert node.handles == fds[1:]
    handles.close_all()
    assert len(handles) == 0
    with pytest.raises(OSError) as caught:
        handles.get(fds[0])
    assert caught.value.errno == errno.EBADF
