import socket

from coworkd.folderfs import told as told_module
from coworkd.model.folder import Changed, Listed, Withdrawn
from tests.unit.folderfs.folder_room import Room


def test_changes_are_gathered(room: Room) -> None:
    room.told.change("create", b"a", 5)
    assert room.told.due_in_s() == told_module.GATHER_S
    room.clock += 1
    assert room.told.due_in_s() == 0
    room.told.change("write", b"a", 5, size=3)
    (said,) = room.hear()
    assert isinstance(said, Changed)
    assert (said.number, said.lost, said.changes[1].size, said.changes[1].pid) == (1, 0, 3, 5)
    assert room.told.due_in_s() is None


def test_like_changes_of_attributes_are_one(room: Room) -> None:
    for path in (b"a", b"a", b"b", b"a"):
        room.told.change("attributes", path, 5)
    assert [path for _, path, _, _ in room.changes()] == [b"a", b"b", b"a"]


def test_other_words_come_after_the_changes_before_them(room: Room) -> None:
    room.told.change("delete", b"a", 5)
    room.told.say(Withdrawn(ask=1))
    assert [type(said) for said in room.hear()] == [Changed, Withdrawn]


def test_a_batch_is_told_at_once(room: Room) -> None:
    for number in range(told_module.BATCH):
        room.told.change("create", b"%d" % number, 5)
    assert room.told.due_in_s() is None
    assert len(room.changes()) == told_module.BATCH


def test_while_nobody_reads_the_oldest_are_lost_and_counted(room: Room) -> None:
    room.ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    count = 200_000
    for number in range(count):
        room.told.change("create", b"%d" % number, 5)
    assert room.told.stuck
    assert room.told.due_in_s() is None
    heard = []
    while batch := room.hear():
        heard += [said for said in batch if isinstance(said, Changed)]
    told = [int(each.path) for said in heard for each in said.changes]
    assert told == sorted(told)
    assert told[-1] == count - 1
    assert len(told) + sum(said.lost for said in heard) == count
    assert [said.number for said in heard] == list(range(1, len(heard) + 1))
    assert not room.told.stuck


def test_too_many_words_are_not_said(room: Room) -> None:
    said = 0
    while room.told.say(Withdrawn(ask=said)):
        said += 1
    assert said > told_module.WORDS
    heard = []
    while batch := room.hear():
        heard += batch
    assert heard == [Withdrawn(ask=number) for number in range(said)]


def test_a_long_message_arrives(room: Room) -> None:
    paths = tuple(b"x" * 200 for _ in range(2000))
    room.told.say(Listed(id=1, paths=paths, more=False))
    assert room.hear() == [Listed(id=1, paths=paths, more=False)]


def test_nobody_there_is_no_error(room: Room) -> None:
    room.ours.close()
    room.told.change("create", b"a", 5)
    room.told.flush()
    assert not room.told.stuck
