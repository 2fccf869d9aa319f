import errno
import os
import struct

import pytest

from coworkd.folderfs.fuse_words import ROOT_NODE, STATFS, Op
from tests.unit.folderfs.folder_room import UID, Room


def test_a_name_is_looked_up(room: Room) -> None:
    entry = room.lookup(b"kept", b"photo")
    assert (entry.size, entry.uid) == (5, UID)
    assert entry.node == room.lookup(b"kept", b"photo").node
    assert room.ask(Op.LOOKUP, ROOT_NODE, (), b"missing") == errno.ENOENT
    assert room.ask(Op.LOOKUP, entry.node, (), b"x") == errno.ENOTDIR
    assert room.ask(Op.LOOKUP, 999, (), b"x") == errno.ESTALE


def test_what_is_forgotten_is_not_known(room: Room) -> None:
    node = room.lookup(b"letter").node
    assert room.ask(Op.FORGET, node, (1,)) is None
    assert room.ask(Op.GETATTR, node) == errno.ESTALE
    nodes = [room.lookup(name).node for name in (b"letter", b"kept")]
    data = struct.pack("=QQQQ", nodes[0], 1, nodes[1], 1)
    assert room.ask(Op.BATCH_FORGET, 0, (2,), data=data) is None
    assert room.ask(Op.GETATTR, nodes[1]) == errno.ESTALE


def test_a_link_is_read_and_not_followed(room: Room) -> None:
    (room.source / "link").symlink_to("/etc/passwd")
    entry = room.lookup(b"link")
    assert entry.mode & 0o170000 == 0o120000
    assert room.ask(Op.READLINK, entry.node) == b"/etc/passwd"


def test_room_is_the_sources(room: Room) -> None:
    answer = room.ask(Op.STATFS)
    assert isinstance(answer, bytes)
    assert STATFS.unpack(answer)[0] == os.statvfs(room.source).f_blocks


def dirents(payload: bytes, *, plus: bool) -> dict[bytes, tuple[int, int]]:
    """Name → its node (0 without attributes) and its offset."""
    found, at = {}, 0
    while at < len(payload):
        node = struct.unpack_from("=Q", payload, at)[0] if plus else 0
        at += 128 * plus
        _, after, length, _ = struct.unpack_from("=QQII", payload, at)
        found[payload[at + 24 : at + 24 + length]] = (node, after)
        at += 24 + (length + 7 & ~7)
    return found


@pytest.mark.parametrize("plus", [False, True])
def test_a_directory_is_read_in_pieces(room: Room, plus: bool) -> None:
    for number in range(100):
        (room.source / f"file-{number}").touch()
    handle = room.handle(room.ask(Op.OPENDIR, ROOT_NODE))
    found: dict[bytes, tuple[int, int]] = {}
    offset = 0
    while True:
        answer = room.ask(Op.READDIRPLUS if plus else Op.READDIR, ROOT_NODE, (handle, offset, 1000))
        assert isinstance(answer, bytes)
        assert len(answer) <= 1000
        if not answer:
            break
        piece = dirents(answer, plus=plus)
        offset = max(after for _, after in piece.values())
        found |= piece
    assert found.keys() == {os.fsencode(name) for name in os.listdir(room.source)} | {b".", b".."}
    assert found[b"."][0] == 0
    assert (found[b"letter"][0] == room.lookup(b"letter").node) is plus
    assert room.ask(Op.FSYNCDIR, ROOT_NODE, (handle,)) == b""
    assert room.ask(Op.RELEASEDIR, ROOT_NODE, (handle,)) == b""
    assert room.ask(Op.READDIR, ROOT_NODE, (handle, 0, 1000)) == errno.EBADF


def test_a_file_is_not_read_as_a_directory(room: Room) -> None:
    handle = room.open(b"letter")
    assert room.ask(Op.READDIR, ROOT_NODE, (handle, 0, 1000)) == errno.ENOTDIR
    assert room.ask(Op.READDIRPLUS, ROOT_NODE, (handle, 0, 1000)) == errno.ENOTDIR


def test_attributes_of_the_user_alone(room: Room) -> None:
    node = room.lookup(b"letter").node
    os.setxattr(room.source / "letter", "user.note", b"value")
    assert room.ask(Op.GETXATTR, node, (0,), b"user.note") == struct.pack("=II", 5, 0)
    assert room.ask(Op.GETXATTR, node, (2,), b"user.note") == errno.ERANGE
    assert room.ask(Op.GETXATTR, node, (9,), b"user.note") == b"value"
    assert room.ask(Op.GETXATTR, node, (9,), b"user.other") == errno.ENODATA
    assert room.ask(Op.GETXATTR, node, (9,), b"security.capability") == errno.EOPNOTSUPP
    assert room.ask(Op.LISTXATTR, node, (99,)) == b"user.note\0"
    room.open(b"letter")
    assert room.ask(Op.GETXATTR, node, (9,), b"user.note") == b"value"
