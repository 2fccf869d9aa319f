import errno

import pytest

from coworkd.folderfs.fuse_words import ROOT_NODE, Op
from coworkd.system import file_calls
from tests.unit.folderfs.folder_room import Room


def rename(room: Room, source: bytes, target: bytes, flags: int | None = None) -> object:
    if flags is None:
        return room.ask(Op.RENAME, ROOT_NODE, (ROOT_NODE,), source, target)
    return room.ask(Op.RENAME2, ROOT_NODE, (ROOT_NODE, flags), source, target)


def deletable(room: Room, name: bytes) -> bool:
    return room.ask(Op.UNLINK, ROOT_NODE, (), name) == b""


def test_an_own_name_stays_own(room: Room) -> None:
    room.create(b"a")
    assert rename(room, b"a", b"b") == b""
    assert ("rename", b"a", b"b", -1) in room.changes()
    assert deletable(room, b"b")


def test_saving_over_a_users_name_leaves_it_the_users(room: Room) -> None:
    room.create(b"t", b"new")
    rename(room, b"t", b"letter")
    assert (room.source / "letter").read_text() == "new"
    assert not deletable(room, b"letter")


def test_an_own_name_over_an_own_one_is_own(room: Room) -> None:
    room.create(b"a")
    room.create(b"b")
    rename(room, b"a", b"b")
    assert deletable(room, b"b")


def test_a_users_name_goes_along(room: Room) -> None:
    room.create(b"own")
    rename(room, b"letter", b"own")
    assert not deletable(room, b"own")


def test_moved_away_and_made_anew_it_may_go_and_the_new_one_may_not(room: Room) -> None:
    rename(room, b"letter", b"letter~")
    assert not deletable(room, b"letter~")
    room.create(b"letter", b"new")
    assert deletable(room, b"letter~")
    assert not deletable(room, b"letter")


def test_a_directory_takes_along_what_is_own(room: Room) -> None:
    kept = room.lookup(b"kept").node
    room.ask(Op.CREATE, kept, (2, 0o644), b"own")
    rename(room, b"kept", b"moved")
    assert room.ask(Op.UNLINK, kept, (), b"own") == b""
    assert room.ask(Op.UNLINK, kept, (), b"photo") == errno.EPERM


def test_without_replacing(room: Room) -> None:
    room.create(b"a")
    assert rename(room, b"a", b"letter", file_calls.RENAME_NOREPLACE) == errno.EEXIST
    assert rename(room, b"a", b"b", file_calls.RENAME_NOREPLACE) == b""
    assert deletable(room, b"b")


@pytest.mark.parametrize(("first", "second", "own"), [(True, True, True), (True, False, False), (False, True, False)])
def test_an_exchange_is_own_only_where_both_were(room: Room, first: bool, second: bool, own: bool) -> None:
    for name, is_own in ((b"a", first), (b"b", second)):
        if is_own:
            room.create(name)
        else:
            (room.source / name.decode()).touch()
    assert rename(room, b"a", b"b", file_calls.RENAME_EXCHANGE) == b""
    assert [deletable(room, b"a"), deletable(room, b"b")] == [own, own]


def test_an_exchange_with_nothing(room: Room) -> None:
    assert rename(room, b"letter", b"missing", file_calls.RENAME_EXCHANGE) == errno.ENOENT
    assert rename(room, b"missing", b"letter") == errno.ENOENT


@pytest.mark.parametrize(
    ("flags", "number"), [(4, errno.EPERM), (5, errno.EPERM), (8, errno.EINVAL), (3, errno.EINVAL)]
)
def test_other_flags_are_refused(room: Room, flags: int, number: int) -> None:
    assert rename(room, b"letter", b"x", flags) == number
    assert (room.source / "letter").exists()


def test_two_names_of_one_file_stay_two(room: Room) -> None:
    node = room.lookup(b"letter").node
    room.entry(Op.LINK, ROOT_NODE, (node,), b"second")
    rename(room, b"second", b"letter")
    assert (room.source / "second").exists()
    assert not deletable(room, b"letter")
    assert deletable(room, b"second")


def test_an_exchange_of_a_name_with_itself_is_none(room: Room) -> None:
    room.create(b"own")
    room.hear()
    assert rename(room, b"own", b"own", file_calls.RENAME_EXCHANGE) == b""
    assert room.folder.names.names.count == len(list(room.folder.names.names)) == 1
    assert room.changes() == []


def test_a_host_that_is_faster_keeps_its_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.create(b"t")
    renameat2 = file_calls.renameat2

    def race(*arguments: object) -> None:
        (room.source / "target").touch()
        renameat2(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(file_calls, "renameat2", race)
    assert rename(room, b"t", b"target") == b""
    assert not deletable(room, b"target")


def test_a_file_system_without_flags_renames_all_the_same(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_arguments: object) -> None:
        raise OSError(errno.EINVAL, "no flags here")

    room.create(b"t")
    monkeypatch.setattr(file_calls, "renameat2", cannot)
    assert rename(room, b"t", b"target") == b""
    assert deletable(room, b"target")


def test_what_was_known_by_number_follows(room: Room) -> None:
    letter, kept = room.lookup(b"letter").node, room.lookup(b"kept").node
    room.ask(Op.RENAME, ROOT_NODE, (kept,), b"letter", b"inside")
    assert isinstance(room.ask(Op.GETATTR, letter), bytes)
    assert room.lookup(b"kept", b"inside").node == letter
