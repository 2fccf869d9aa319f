"""Whatever a session does, with a server that begins anew in between: the user never has fewer names than before.

A name counts as lost where the session renames one of the user's over another: that is writing.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from coworkd.folderfs import journal
from coworkd.folderfs.folder import Answer
from coworkd.folderfs.fuse_words import ROOT_NODE, Op
from coworkd.folderfs.journal import JournaledNames
from coworkd.folderfs.names import Path as Names
from coworkd.system.file_calls import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.unit.folderfs.folder_room import Room

_DIRECTORIES: tuple[Names, ...] = ((), (b"D",), (b"D", b"E"), (b"F",), (b"N",), (b"N", b"M"), (b"F", b"N"))
_NAMES = (b"a", b"b", b"c", b"D", b"E", b"F", b"N", b"M")
_STEPS = 80


class _Session:
    """Does things at random in a folder of the user's."""

    def __init__(self, source: Path, journal_fd: int, seed: int) -> None:
        self.source = source
        self.lost = 0
        self._fd = journal_fd
        self._random = random.Random(seed)
        self.begin()

    def begin(self) -> None:
        self.room = Room(self.source)
        self.room.folder.names = JournaledNames(self._fd)

    def node(self, path: Names) -> int | None:
        node = ROOT_NODE
        for name in path:
            answer = self.room.ask(Op.LOOKUP, node, (), name)
            if not isinstance(answer, bytes):
                return None
            node = int.from_bytes(answer[:8], "little")
        return node

    def step(self) -> None:
        directory, name = self._random.choice(_DIRECTORIES), self._random.choice(_NAMES)
        node = self.node(directory)
        chance = self._random.random()
        if node is None:
            return
        if chance < 0.22:
            answer = self.room.ask(Op.CREATE, node, (os.O_RDWR | os.O_EXCL, 0o644), name)
            if isinstance(answer, bytes):
                self.room.ask(Op.RELEASE, 1, (self.room.handle(answer),))
        elif chance < 0.3:
            self.room.ask(Op.MKDIR, node, (0o755,), name)
        elif chance < 0.38:
            linked = self.node((*self._random.choice(_DIRECTORIES), self._random.choice(_NAMES)))
            if linked is not None:
                self.room.ask(Op.LINK, node, (linked,), name)
        elif chance < 0.75:
            self._rename(directory, node, name)
        elif chance < 0.95:
            self.room.ask(self._random.choice((Op.UNLINK, Op.UNLINK, Op.RMDIR)), node, (), name)
        else:
            self.room.close()
            self.begin()
        self.room.hear()

    def _rename(self, directory: Names, node: int, name: bytes) -> None:
        other, new = self._random.choice(_DIRECTORIES), self._random.choice(_NAMES)
        target = self.node(other)
        if target is None:
            return
        flags = self._random.choice((0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
        users = self._is_users(directory, node, name) and self._is_users(other, target, new)
        same = users and self._inode(directory, name) == self._inode(other, new)
        answer = self.room.ask(Op.RENAME2, node, (target, flags), name, new)
        self.lost += users and not same and not flags and not isinstance(answer, int)

    def _is_users(self, directory: Names, node: int, name: bytes) -> bool:
        folder = self.room.folder
        try:
            return folder.own(folder.nodes.directory(folder.nodes.get(node)), name, (*directory, name)) is None and (
                self._inode(directory, name) > 0
            )
        except OSError:
            return False

    def _inode(self, directory: Names, name: bytes) -> int:
        return os.lstat(os.path.join(os.fsencode(self.source), *directory, name)).st_ino

    def delete_all(self) -> None:
        """As far as it may."""
        for place, directories, files in os.walk(os.fsencode(self.source), topdown=False):
            node = self.node(tuple(place.split(b"/")[len(self.source.parts) :]))
            assert node is not None
            self._each(Op.UNLINK, node, files)
            self._each(Op.RMDIR, node, directories)

    def _each(self, op: Op, node: int, names: list[bytes]) -> list[Answer]:
        answers = [self.room.ask(op, node, (), name) for name in names]
        self.room.hear()
        return answers


@pytest.mark.parametrize("seed", range(40))
def test_the_user_never_has_fewer_names(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 3000)
    source = tmp_path / "source"
    for directory in ("", "D", "D/E", "F"):
        (source / directory).mkdir(exist_ok=True)
        for name in "ab":
            (source / directory / name).write_text(f"{directory}/{name}")
    before = len(list(source.rglob("*")))
    fd = os.open(tmp_path / "journal", os.O_RDWR | os.O_CREAT)
    session = _Session(source, fd, seed)
    for _ in range(_STEPS):
        session.step()
        names = session.room.folder.names.names
        assert names.count == len(list(names))
    assert dict(JournaledNames(fd).names) == dict(names)
    for _ in range(3):
        session.delete_all()
    assert len(list(source.rglob("*"))) >= before - session.lost
    session.room.close()
    os.close(fd)
