import errno
import os
from pathlib import Path

import pytest

from coworkd.folderfs.fuse_words import ROOT_NODE, Op
from coworkd.model.folder import Asked
from tests.unit.folderfs.folder_room import PID, Room


def test_own_names_go_whatever_the_rule(room: Room) -> None:
    room.create(b"a")
    room.entry(Op.MKDIR, ROOT_NODE, (0o755,), b"d")
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"a") == b""
    assert room.ask(Op.RMDIR, ROOT_NODE, (), b"d") == b""
    assert room.changes()[-2:] == [("delete", b"a", b"", -1), ("rmdir", b"d", b"", -1)]


def test_the_users_are_refused(room: Room) -> None:
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"letter") == errno.EPERM
    assert room.ask(Op.RMDIR, ROOT_NODE, (), b"kept") == errno.EPERM
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"missing") == errno.ENOENT
    assert (room.source / "letter").exists()


def test_allowed_they_go(source: Path) -> None:
    room = Room(source, deletes="allow")
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"letter") == b""
    assert room.ask(Op.RMDIR, ROOT_NODE, (), b"kept") == errno.ENOTEMPTY
    assert not (source / "letter").exists()
    room.close()


def test_what_the_host_replaced_is_the_users(room: Room) -> None:
    room.create(b"a")
    (room.source / "b").write_text("host")
    os.rename(room.source / "b", room.source / "a")
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"a") == errno.EPERM


def test_a_borrowed_name_goes_while_there_is_another(room: Room) -> None:
    node = room.lookup(b"letter").node
    room.entry(Op.LINK, ROOT_NODE, (node,), b"second")
    (room.source / "letter").unlink()
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"second") == errno.EPERM
    os.link(room.source / "second", room.source / "letter")
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"second") == b""


def test_one_of_the_two_is_the_users_at_every_moment(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.ask(Op.RENAME, ROOT_NODE, (ROOT_NODE,), b"letter", b"backup") == b""
    room.create(b"letter")

    def unlink(name: bytes, *, dir_fd: int) -> None:
        assert room.folder.names.names.get((b"letter",)) is None
        raise OSError(errno.EIO, "the end, right here")

    monkeypatch.setattr(os, "unlink", unlink)
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"backup") == errno.EIO
    monkeypatch.undo()
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"letter") == errno.EPERM


@pytest.fixture
def asking(source: Path) -> Room:
    return Room(source, deletes="ask")


def asked(room: Room, op: int, name: bytes) -> Asked:
    assert room.ask(op, ROOT_NODE, (), name) is None
    (said,) = room.hear()
    assert isinstance(said, Asked)
    return said


@pytest.mark.parametrize("allow", [True, False])
def test_a_question_and_its_verdict(asking: Room, allow: bool) -> None:
    said = asked(asking, Op.UNLINK, b"letter")
    assert (said.path, said.action, said.pid) == (b"letter", "delete", PID)
    ask = asking.asks.take(said.ask)
    assert ask is not None
    assert asking.removals.carry_out(ask, allow=allow) == (b"" if allow else errno.EPERM)
    assert (asking.source / "letter").exists() is not allow
    asking.close()


def test_a_directory_that_is_not_empty_asks_nobody(asking: Room) -> None:
    assert asking.ask(Op.RMDIR, ROOT_NODE, (), b"kept") == errno.ENOTEMPTY
    (asking.source / "kept" / "photo").unlink()
    assert asked(asking, Op.RMDIR, b"kept").action == "rmdir"
    asking.close()


def test_another_file_is_not_what_was_asked_about(asking: Room) -> None:
    ask = asking.asks.take(asked(asking, Op.UNLINK, b"letter").ask)
    (asking.source / "new").write_text("")
    os.rename(asking.source / "new", asking.source / "letter")
    assert ask is not None
    assert asking.removals.carry_out(ask, allow=True) == errno.EPERM
    assert (asking.source / "letter").exists()
    asking.close()


def test_a_file_that_went_meanwhile(asking: Room) -> None:
    ask = asking.asks.take(asked(asking, Op.UNLINK, b"letter").ask)
    (asking.source / "letter").unlink()
    assert ask is not None
    assert asking.removals.carry_out(ask, allow=True) == errno.ENOENT
    asking.close()


def test_a_directory_that_moved_meanwhile_is_the_one_asked_about(asking: Room) -> None:
    kept = asking.lookup(b"kept").node
    assert asking.ask(Op.UNLINK, kept, (), b"photo") is None
    os.rename(asking.source / "kept", asking.source / "moved")
    (asking.source / "kept").mkdir()
    (asking.source / "kept" / "photo").write_text("another")
    ask = asking.asks.take(1)
    assert ask is not None
    assert asking.removals.carry_out(ask, allow=True) == b""
    assert (asking.source / "kept" / "photo").exists()
    assert not (asking.source / "moved" / "photo").exists()
    asking.close()


def test_moved_away_a_file_is_not_made_anew_by_a_directory(room: Room) -> None:
    room.ask(Op.RENAME, ROOT_NODE, (ROOT_NODE,), b"letter", b"away")
    room.entry(Op.MKDIR, ROOT_NODE, (0o755,), b"letter")
    assert room.ask(Op.UNLINK, ROOT_NODE, (), b"away") == errno.EPERM
