import errno
import os
import time

import pytest

from coworkd.folderfs.fuse_words import ROOT_NODE, Op, Set
from tests.unit.folderfs.folder_room import UID, Room


def change(room: Room, node: int, valid: int, **given: int) -> object:
    """SETATTR: `valid` and what it is about."""
    order = [
        "fh",
        "size",
        "lock_owner",
        "atime",
        "mtime",
        "ctime",
        "atime_ns",
        "mtime_ns",
        "ctime_ns",
        "mode",
        "uid",
        "gid",
    ]
    return room.ask(Op.SETATTR, node, (valid, *(given.get(name, 0) for name in order)))


def test_a_mode_without_set_id_bits(room: Room) -> None:
    for name, handle in ((b"letter", False), (b"kept", False), (b"letter", True)):
        node = room.lookup(name).node
        if handle:
            room.open(name)
        assert isinstance(change(room, node, Set.MODE, mode=0o106751), bytes)
        assert (room.source / name.decode()).stat().st_mode & 0o7777 == 0o751
        (room.source / name.decode()).chmod(0o700)
    assert [each[0] for each in room.changes()] == ["attributes"] * 3


@pytest.mark.parametrize(
    ("before", "asked", "after"), [(0o2755, 0o6775, 0o2775), (0o2755, 0o775, 0o775), (0o755, 0o2775, 0o775)]
)
def test_a_directory_passes_its_group_on_as_before(room: Room, before: int, asked: int, after: int) -> None:
    (room.source / "kept").chmod(before)
    assert isinstance(change(room, room.lookup(b"kept").node, Set.MODE, mode=asked), bytes)
    assert (room.source / "kept").stat().st_mode & 0o7777 == after


def test_a_links_mode_is_nobodys(room: Room) -> None:
    (room.source / "link").symlink_to("letter")
    before = (room.source / "letter").stat().st_mode
    assert change(room, room.lookup(b"link").node, Set.MODE, mode=0o777) == errno.EOPNOTSUPP
    assert (room.source / "letter").stat().st_mode == before


def test_it_is_given_to_nobody_else(room: Room) -> None:
    node = room.lookup(b"letter").node
    assert isinstance(change(room, node, Set.UID | Set.GID, uid=UID, gid=UID), bytes)
    assert change(room, node, Set.UID, uid=UID + 1) == errno.EPERM
    assert change(room, node, Set.GID, gid=0) == errno.EPERM
    assert change(room, node, Set.MODE | Set.UID, mode=0o777, uid=0) == errno.EPERM
    assert (room.source / "letter").stat().st_mode & 0o777 != 0o777
    assert room.changes() == []


@pytest.mark.parametrize("size", [0, 3, 100])
def test_a_size(room: Room, size: int) -> None:
    node = room.lookup(b"letter").node
    assert isinstance(change(room, node, Set.SIZE, size=size), bytes)
    assert (room.source / "letter").stat().st_size == size
    assert room.changes() == [("truncate", b"letter", b"", size)]


def test_a_size_by_what_is_open(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_RDWR)
    change(room, room.lookup(b"letter").node, Set.SIZE | Set.FH, fh=handle, size=2)
    room.ask(Op.RELEASE, 1, (handle,))
    assert room.changes() == [("write", b"letter", b"", 2)]


def test_times_before_the_epoch_and_now(room: Room) -> None:
    node = room.lookup(b"letter").node
    change(room, node, Set.ATIME | Set.MTIME, atime=5, atime_ns=6, mtime=2**64 - 2, mtime_ns=7)
    found = (room.source / "letter").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (5_000_000_006, -2_000_000_000 + 7)
    change(room, node, Set.MTIME, mtime=9)
    found = (room.source / "letter").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (5_000_000_006, 9_000_000_000)
    now = Set.ATIME | Set.MTIME | Set.ATIME_NOW | Set.MTIME_NOW
    change(room, node, now)
    assert abs((room.source / "letter").stat().st_mtime - time.time()) < 60
    room.open(b"letter")
    change(room, node, Set.ATIME | Set.ATIME_NOW)
    change(room, room.lookup(b"kept").node, Set.MTIME, mtime=9)
    assert (room.source / "kept").stat().st_mtime == 9


def test_a_links_times_are_its_own(room: Room) -> None:
    (room.source / "link").symlink_to("letter")
    change(room, room.lookup(b"link").node, Set.MTIME, mtime=9)
    assert (room.source / "link").lstat().st_mtime == 9
    assert (room.source / "letter").stat().st_mtime != 9


@pytest.mark.parametrize("path", [(b"letter",), (b"kept",)])
def test_attributes_of_the_user_alone(room: Room, path: tuple[bytes, ...]) -> None:
    node = room.lookup(*path).node
    place = room.source / path[0].decode()
    assert room.ask(Op.SETXATTR, node, (5, 0), b"user.note", data=b"value") == b""
    assert os.getxattr(place, "user.note") == b"value"
    assert room.ask(Op.SETXATTR, node, (5, os.XATTR_CREATE), b"user.note", data=b"value") == errno.EEXIST
    assert room.ask(Op.SETXATTR, node, (9, 0), b"user.note", data=b"value") == errno.EINVAL
    assert room.ask(Op.REMOVEXATTR, node, (), b"user.note") == b""
    assert os.listxattr(place) == []
    for name in (b"security.capability", b"trusted.x", b"system.posix_acl_access"):
        assert room.ask(Op.SETXATTR, node, (1, 0), name, data=b"x") == errno.EOPNOTSUPP
        assert room.ask(Op.REMOVEXATTR, node, (), name) == errno.EOPNOTSUPP


def test_what_is_not_there_any_more(room: Room) -> None:
    node = room.lookup(b"letter").node
    (room.source / "letter").unlink()
    for valid in (Set.MODE, Set.SIZE, Set.MTIME):
        assert change(room, node, valid) == errno.ESTALE
    assert change(room, ROOT_NODE, Set.MODE, mode=0o755) != errno.ESTALE
