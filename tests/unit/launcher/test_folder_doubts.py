"""Who is looked after once something was killed, and what comes of it; tests/root/test_launcher_folder_faults.py has a share that hangs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.launcher import folder_doubts
from coworkd.launcher.errand import Report, Teller
from coworkd.launcher.folder import Folder, FolderState
from coworkd.launcher.folder_doubts import Doubts
from coworkd.launcher.readers import Readers
from coworkd.model.launch import MountFolder
from tests.unit.launcher.launcher_room import open_fds

FOLDER = Folder(MountFolder(id=1, session="bob", name="work", root=b"/", source=b"srv", mode="rw"), FolderState.MOUNTED)


class FakePlace:
    """A place whose look is what the test says."""

    def __init__(self, *, hangs: bool, takes_s: float = 0.0) -> None:
        self.mount_namespace = 0
        self._hangs = hangs
        self._takes_s = takes_s

    def cut_off_if_hung(self, teller: Teller) -> None:
        time.sleep(self._takes_s)
        teller.tell(Report(busy=self._hangs))


class Room:
    """Doubts over a session `bob` with one folder; `lives` is whether its killed command does."""

    def __init__(self, place: FakePlace | None) -> None:
        self.lives = True
        self.parted: list[Folder] = []
        self.readers = Readers()
        self._places = [] if place is None else [(FOLDER, place)]
        self.doubts = Doubts(self, readers=self.readers, lives=lambda session: self.lives)  # type: ignore[arg-type]

    def guarded(self, session: str) -> list[tuple[Folder, Any]]:
        return self._places if session == "bob" else []

    def cut_off(self, folder: Folder) -> None:
        self.parted.append(folder)

    def pass_time(self) -> None:
        """What is due is done, and what was begun has ended."""
        self.doubts.end_late()
        for pid in list(self.doubts._looking):
            os.waitpid(pid, 0)
            self.doubts.reaped(pid)
            self.readers.call_ready(5.0)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(folder_doubts, "_PATIENCE_S", 0.0)
    before = open_fds()
    yield
    assert open_fds() == before


def test_a_folder_that_hangs_is_parted_from_a_command_that_outlives_its_kill() -> None:
    room = Room(FakePlace(hangs=True))
    room.doubts.killed("bob")
    room.pass_time()
    room.readers.close()
    assert room.parted == [FOLDER]


def test_one_that_works_is_left_alone_and_looked_at_again() -> None:
    room = Room(FakePlace(hangs=False))
    room.doubts.killed("bob")
    room.pass_time()
    assert room.parted == []
    assert room.doubts.next_due() is not None
    room.lives = False
    room.pass_time()
    room.readers.close()
    assert room.doubts.next_due() is None


def test_nobody_looks_where_the_killed_command_has_gone() -> None:
    room = Room(FakePlace(hangs=True))
    room.lives = False
    room.doubts.killed("bob")
    room.pass_time()
    room.readers.close()
    assert (room.parted, room.doubts.next_due()) == ([], None)


def test_a_session_without_guarded_folders_is_never_in_doubt() -> None:
    room = Room(None)
    room.doubts.killed("bob")
    room.readers.close()
    assert room.doubts.next_due() is None


def test_a_look_that_hangs_itself_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_doubts, "_DEADLINE_S", 0.0)
    room = Room(FakePlace(hangs=True, takes_s=60.0))
    room.doubts.killed("bob")
    room.doubts.end_late()
    (pid,) = room.doubts._looking
    room.lives = False
    room.doubts.end_late()
    os.waitpid(pid, 0)
    room.readers.close()
    assert (room.parted, room.doubts._looking) == ([], {})
