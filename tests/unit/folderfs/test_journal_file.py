import os
from pathlib import Path

import pytest

from coworkd.folderfs.journal import BLOCK_BYTES, JournaledNames
from coworkd.folderfs.journal_file import open_journal
from coworkd.folderfs.names import Identity

ONE = Identity(1, 10)


def test_one_at_a_time_writes_to_a_file(tmp_path: Path) -> None:
    path = bytes(tmp_path / "journal")
    first = open_journal(path)
    lingering = JournaledNames(first)
    lingering.add((b"before",), ONE)
    second = open_journal(path)
    current = JournaledNames(second)
    for number in range(20):
        lingering.add((b"old-%02d" % number,), ONE)
        current.add((b"new-%02d" % number,), ONE)
    assert len(list(current.names)) == 21
    os.close(second)
    third = open_journal(path)
    assert dict(JournaledNames(third).names) == dict(current.names)
    assert os.listdir(tmp_path) == ["journal"]
    for fd in (first, third):
        os.close(fd)


def test_a_copy_begins_where_the_data_does(tmp_path: Path) -> None:
    path = bytes(tmp_path / "journal")
    first = open_journal(path)
    names = JournaledNames(first)
    for number in range(300):
        names.add((b"%d" % number,), ONE)
    names._compact()
    names.add((b"last",), ONE)
    second = open_journal(path)
    assert os.fstat(second).st_size < os.fstat(first).st_size
    assert os.fstat(first).st_size > BLOCK_BYTES
    assert dict(JournaledNames(second).names) == dict(names.names)
    for fd in (first, second):
        os.close(fd)


def test_without_room_for_a_copy_nothing_is_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bytes(tmp_path / "journal")
    first = open_journal(path)
    JournaledNames(first).add((b"own",), ONE)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    second = open_journal(path)
    assert JournaledNames(second).names.count == 0
    for fd in (first, second):
        os.close(fd)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        open_journal(bytes(tmp_path / "journal"))
    assert not (tmp_path / "elsewhere").exists()
