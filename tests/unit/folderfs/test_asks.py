import os
from pathlib import Path

import pytest

from coworkd.folderfs import asks as asks_module
from coworkd.folderfs.asks import LOOK_S
from coworkd.model.folder import Asked, Withdrawn
from tests.unit.folderfs.folder_room import Room


def add(room: Room, unique: int) -> bool:
    root = room.folder.nodes.root
    return room.asks.add(
        unique,
        parent=root,
        directory=root.fd,
        name=b"letter",
        path=b"letter",
        found=os.stat(room.source / "letter"),
        born=1,
        is_directory=False,
        pid=5,
    )


def test_each_is_asked_under_a_number_of_its_own(room: Room) -> None:
    assert add(room, 100)
    assert add(room, 101)
    assert [said.ask for said in room.hear() if isinstance(said, Asked)] == [1, 2]
    ask = room.asks.take(2)
    assert ask is not None
    assert ask.unique == 101
    os.close(ask.directory)
    assert room.asks.take(2) is None
    assert len(room.asks) == 1


def test_who_is_interrupted_waits_on_until_he_is_to_end(room: Room) -> None:
    add(room, 100)
    room.asks.interrupt(99)
    assert room.asks.due_in_s() == 60
    room.asks.interrupt(100)
    assert room.asks.due_in_s() == 0
    assert room.asks.given_up() == []
    assert room.asks.due_in_s() == LOOK_S
    room.ending.add(5)
    assert room.asks.given_up() == []
    room.clock += LOOK_S
    (ask,) = room.asks.given_up()
    assert ask.unique == 100
    room.asks.drop(ask)
    room.clock += LOOK_S
    assert room.asks.given_up() == []
    assert room.hear()[-1] == Withdrawn(ask=1)


@pytest.mark.parametrize(
    ("born_then", "born_now", "changed", "same"),
    [(7, 7, True, True), (7, 8, False, False), (0, 0, False, True), (0, 0, True, False), (7, 0, False, False)],
)
def test_an_ask_is_about_one_file(room: Room, born_then: int, born_now: int, changed: bool, same: bool) -> None:
    add(room, 100)
    ask = room.asks.take(1)
    assert ask is not None
    ask.born = born_then
    if changed:
        (room.source / "letter").chmod(0o600)
    assert ask.is_of(os.stat(room.source / "letter"), born_now) is same
    os.close(ask.directory)


def test_time_runs_out(room: Room) -> None:
    assert room.asks.due_in_s() is None
    add(room, 100)
    room.clock += 10
    add(room, 101)
    assert room.asks.due_in_s() == 50
    room.clock += 50
    assert [ask.unique for ask in room.asks.overdue()] == [100]
    room.asks.timeout_s = 0.0
    assert [ask.unique for ask in room.asks.overdue()] == [100, 101]


def test_who_listens_next_is_told_again(room: Room) -> None:
    add(room, 100)
    (first,) = (said for said in room.hear() if isinstance(said, Asked))
    room.clock += 40
    room.asks.tell_again()
    (again,) = (said for said in room.hear() if isinstance(said, Asked))
    assert again.ask == first.ask
    assert again.at == pytest.approx(first.at - 40, abs=5), "the time that is left would begin anew"


def test_too_many_are_refused_and_no_descriptor_stays(
    source: Path, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asks_module, "WAITING", 3)
    before = len(os.listdir("/proc/self/fd"))
    assert [add(room, unique) for unique in range(5)] == [True, True, True, False, False]
    room.asks.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_said_is_not_asked(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.told, "say", lambda _message: False)
    before = len(os.listdir("/proc/self/fd"))
    assert not add(room, 1)
    assert len(room.asks) == 0
    assert len(os.listdir("/proc/self/fd")) == before
