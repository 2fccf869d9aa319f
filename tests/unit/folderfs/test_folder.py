import errno
import os
from pathlib import Path

import pytest

from coworkd.folderfs.folder import below, joined, number_of
from coworkd.folderfs.names import Identity
from coworkd.system import file_calls
from tests.unit.folderfs.folder_room import Room


def test_paths() -> None:
    assert joined((b"a", b"b")) == b"a/b"
    assert joined(()) == b""


def test_a_name_below_a_node(room: Room) -> None:
    kept = room.folder.nodes.get(room.lookup(b"kept").node)
    assert below(kept, b"x") == (b"kept", b"x")


def test_running_out_of_descriptors_is_not_the_callers() -> None:
    assert number_of(OSError(errno.EMFILE, "")) == errno.ENFILE
    assert number_of(OSError(errno.ENOSPC, "")) == errno.ENOSPC
    assert number_of(OSError("odd")) == errno.EIO


def test_made_and_own(room: Room) -> None:
    folder, fd = room.folder, room.source_fd
    folder.made(fd, b"letter", (b"letter",))
    assert folder.own(fd, b"letter", (b"letter",)) is not None
    assert folder.own(fd, b"kept", (b"kept",)) is None
    folder.names.add((b"letter",), Identity(1, 1))
    assert folder.own(fd, b"letter", (b"letter",)) is None


def test_what_cannot_be_looked_at_is_the_users(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> tuple[int, int]:
        raise OSError(errno.EIO, "")

    room.folder.names.add((b"letter",), Identity(1, 1))
    monkeypatch.setattr(file_calls, "inode_and_birth", fail)
    room.folder.made(room.source_fd, b"letter", (b"letter",))
    assert room.folder.names.names.get((b"letter",)) is None


def test_closing_leaves_no_descriptor(source: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    room = Room(source)
    room.lookup(b"kept", b"photo")
    room.open(b"letter")
    room.close()
    assert len(os.listdir("/proc/self/fd")) == before
