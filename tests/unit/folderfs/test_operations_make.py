import errno
import os
import socket
import stat

import pytest

from coworkd.folderfs.fuse_words import ROOT_NODE, Op
from tests.unit.folderfs.folder_room import Room


def own(room: Room, *path: bytes) -> bool:
    return room.folder.names.names.get(path) is not None


def test_a_created_file_is_own(room: Room) -> None:
    entry = room.create(b"new", b"hello")
    assert (room.source / "new").read_text() == "hello"
    assert entry.inode == (room.source / "new").stat().st_ino
    assert own(room, b"new")
    assert room.changes() == [("create", b"new", b"", -1), ("write", b"new", b"", 5)]


def test_what_the_host_made_in_between_is_opened_and_is_the_users(room: Room) -> None:
    answer = room.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR | os.O_CREAT, 0o644), b"letter")
    assert room.folder.handles.get(room.handle(answer))
    assert not own(room, b"letter")
    assert room.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR | os.O_EXCL, 0o644), b"letter") == errno.EEXIST
    assert room.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR, 0o644), b"kept") == errno.ESTALE
    room.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR | os.O_TRUNC, 0o644), b"letter")
    assert (room.source / "letter").read_text() == ""
    assert room.changes() == [("truncate", b"letter", b"", 0)]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
def test_set_id_bits_are_left_out(room: Room, mode: int) -> None:
    umask = os.umask(0)
    try:
        room.handle(room.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR, mode), b"f"))
        room.entry(Op.MKDIR, ROOT_NODE, (mode,), b"d")
        room.entry(Op.MKNOD, ROOT_NODE, (stat.S_IFREG | mode,), b"n")
        room.handle(room.ask(Op.TMPFILE, ROOT_NODE, (os.O_RDWR, mode)))
    finally:
        os.umask(umask)
    for name in "fdn":
        assert (room.source / name).stat().st_mode & 0o7777 == mode & 0o777


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, stat.S_IFLNK])
def test_devices_are_refused(room: Room, kind: int) -> None:
    assert room.ask(Op.MKNOD, ROOT_NODE, (kind | 0o644, 0x103), b"null") == errno.EPERM
    assert not (room.source / "null").exists()


def test_fifos_sockets_and_links(room: Room) -> None:
    assert stat.S_ISFIFO(room.entry(Op.MKNOD, ROOT_NODE, (stat.S_IFIFO | 0o600,), b"p").mode)
    assert stat.S_ISSOCK(room.entry(Op.MKNOD, ROOT_NODE, (stat.S_IFSOCK | 0o600,), b"s").mode)
    assert stat.S_ISLNK(room.entry(Op.SYMLINK, ROOT_NODE, (), b"l", b"../../away").mode)
    assert os.readlink(room.source / "l") == "../../away"
    assert room.ask(Op.SYMLINK, ROOT_NODE, (), b"l", b"x") == errno.EEXIST
    assert all(own(room, name) for name in (b"p", b"s", b"l"))
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(room.source / "s"))


def test_a_directory_and_what_is_in_it(room: Room) -> None:
    node = room.entry(Op.MKDIR, ROOT_NODE, (0o755,), b"d").node
    room.ask(Op.CREATE, node, (os.O_RDWR, 0o644), b"f")
    assert own(room, b"d", b"f")
    assert room.ask(Op.MKDIR, ROOT_NODE, (0o755,), b"kept") == errno.EEXIST


def test_a_link_to_the_users_is_borrowed(room: Room) -> None:
    node = room.lookup(b"letter").node
    entry = room.entry(Op.LINK, ROOT_NODE, (node,), b"second")
    assert (entry.node, entry.links) == (node, 2)
    room.entry(Op.LINK, ROOT_NODE, (node,), b"third")
    for path in ((b"second",), (b"third",)):
        recorded = room.folder.names.names.get(path)
        assert recorded is not None
        assert recorded.borrowed
    assert room.changes()[0] == ("link", b"second", b"letter", -1)


def test_a_link_to_an_own_one_is_own(room: Room) -> None:
    node = room.create(b"new").node
    room.entry(Op.LINK, ROOT_NODE, (node,), b"second")
    recorded = room.folder.names.names.get((b"second",))
    assert recorded is not None
    assert not recorded.borrowed


def test_a_file_without_a_name_is_linked(room: Room) -> None:
    answer = room.ask(Op.TMPFILE, ROOT_NODE, (os.O_RDWR, 0o644))
    handle = room.handle(answer)
    node = room.folder.handles.get(handle).node
    assert room.entry(Op.LINK, ROOT_NODE, (node.number,), b"named").node == node.number
    assert own(room, b"named")
    assert (room.source / "named").exists()
    room.ask(Op.RELEASE, node.number, (handle,))


def test_a_gone_file_that_is_not_open_is_not_linked(room: Room) -> None:
    node = room.create(b"new").node
    room.ask(Op.UNLINK, ROOT_NODE, (), b"new")
    assert room.ask(Op.LINK, ROOT_NODE, (node,), b"again") == errno.ENOENT
