from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.errors import DiskFailed, InvalidState
from coworkd.model.policy import LimitsRequest
from coworkd.services import session_records
from coworkd.services.session_records import RecordStore
from tests.unit.services.session_house import folder, record

FULL = record(
    folders=(folder("src", mode="rwd", required=False),),
    limits=LimitsRequest(pids_max=5),
    env={"A": "ä"},
    ephemeral=True,
)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    made = RecordStore(str(tmp_path))
    assert made.load() == {}
    return made


def test_a_record_comes_back_as_it_was_saved(store: RecordStore) -> None:
    store.save(FULL)
    store.save(record("eve", uid=1002, gid=1002, state="deleting"))
    assert store.load() == {"bob": FULL, "eve": record("eve", uid=1002, gid=1002, state="deleting")}


def test_a_record_is_roots_alone(store: RecordStore, tmp_path: Path) -> None:
    store.save(FULL)
    assert stat.S_IMODE((tmp_path / "sessions/bob.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "sessions").stat().st_mode) == 0o700


def test_remove_forgets_and_may_be_asked_twice(store: RecordStore) -> None:
    store.save(FULL)
    store.remove("bob")
    store.remove("bob")
    assert store.load() == {}


class Crash(Exception):
    """The power fails here."""


@pytest.mark.parametrize("step", ["open", "fsync", "rename"])
def test_a_crash_before_the_rename_leaves_the_old_record(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store.save(record())
    crash_at(monkeypatch, step)
    with pytest.raises(Crash):
        store.save(FULL)
    monkeypatch.undo()
    assert store.load() == {"bob": record()}


def test_a_crash_after_the_rename_leaves_the_new_record(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(record())
    crash_at(monkeypatch, "fsync", call=2)
    with pytest.raises(Crash):
        store.save(FULL)
    monkeypatch.undo()
    assert store.load() == {"bob": FULL}


def crash_at(monkeypatch: pytest.MonkeyPatch, step: str, *, call: int = 1) -> None:
    real: Callable[..., object] = getattr(os, step)
    calls = 0

    def stop(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Crash
        return real(*arguments, **named)

    monkeypatch.setattr(os, step, stop)


def test_the_file_is_durable_before_it_has_its_name_and_the_name_before_save_returns(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(fd: int) -> None:
        steps.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    def record_rename(old: str, new: str) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    store.save(record())
    assert steps == ["fsync file", "rename", "fsync directory"]


def test_half_a_new_record_is_never_read(store: RecordStore, tmp_path: Path) -> None:
    (tmp_path / "sessions/.bob.json.new").write_text('{"format": 1, "na')
    assert store.load() == {}
    assert not (tmp_path / "sessions/.bob.json.new").exists()
    store.save(record())
    assert store.load() == {"bob": record()}


_WITH_FOLDERS = (
    '{{"format": 1, "name": "bob", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "ready",'
    ' "folders": [{}]}}'
)


def test_a_record_with_folders_is_read(store: RecordStore, tmp_path: Path) -> None:
    text = _WITH_FOLDERS.format(
        '{"name": "x", "source": "/srv", "mode": "ro"}, {"name": "y", "source": "/srv", "mode": "rw"}'
    )
    (tmp_path / "sessions/bob.json").write_text(text)
    assert [grant.name for grant in store.load()["bob"].folders] == ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 0, "name": "bob", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 2, "name": "eve", "uid": 1001}',
        '{"format": "2", "name": "bob"}',
        '{"format": 1, "name": "eve", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 0, "gid": 0, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 1001, "gid": 0, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 60000, "gid": 60000, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "odd"}',
        _WITH_FOLDERS.format('{"name": "../../x", "source": "/srv", "mode": "staged"}'),
        _WITH_FOLDERS.format('{"name": "x", "source": "/srv", "mode": "rwx"}'),
        _WITH_FOLDERS.format(", ".join(2 * ['{"name": "x", "source": "/srv", "mode": "ro"}'])),
    ],
)
def test_a_broken_record_is_set_aside_and_told(
    store: RecordStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    store.save(record("eve", uid=1002, gid=1002))
    (tmp_path / "sessions/bob.json").write_text(text)
    assert list(store.load()) == ["eve"]
    assert (tmp_path / "sessions/bob.json.broken").read_text() == text
    assert "set aside" in caplog.text
    assert list(store.load()) == ["eve"]


def test_a_record_of_a_name_no_session_has_is_set_aside(store: RecordStore, tmp_path: Path) -> None:
    store.save(record())
    text = (tmp_path / "sessions/bob.json").read_text()
    (tmp_path / "sessions/Root.json").write_text(text.replace('"bob"', '"Root"'))
    assert list(store.load()) == ["bob"]


def test_a_disk_that_takes_only_a_part_keeps_the_old_record(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(record())
    opened: list[int] = []

    class Full:
        """A file on a disk that has just become full."""

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            os.close(opened[0])

        def write(self, data: bytes) -> int:
            return os.write(opened[0], data[:10])

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(fd: int, mode: str) -> Full:
        opened.append(fd)
        return Full()

    (tmp_path / "sessions/.spare").unlink()
    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(DiskFailed, match="No space left"):
        store.save(FULL)
    monkeypatch.undo()
    assert store.load() == {"bob": record()}


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskFailed) as caught:
        RecordStore(str(tmp_path / "file")).load()
    assert caught.value.details["errno"] == errno.ENOTDIR


def test_a_record_that_cannot_be_removed_is_told(store: RecordStore, tmp_path: Path) -> None:
    (tmp_path / "sessions/bob.json").mkdir()
    with pytest.raises(DiskFailed, match="cannot be removed"):
        store.remove("bob")
    assert not list((tmp_path / "sessions").glob(".bob*"))


LATER = '{"format": 7, "name": "bob", "uid": 1009, "home": {"of": "another kind"}}'


def test_a_record_of_a_later_format_is_left_alone_and_reserved(
    store: RecordStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions/bob.json"
    path.write_text(LATER)
    for _ in range(2):
        assert store.load() == {}
        assert store.reserved == {"bob": 1009}
        assert store.broken == ()
        assert path.read_text() == LATER
    assert "a later coworkd" in caplog.text
    with pytest.raises(InvalidState, match="left alone"):
        store.save(record())
    assert path.read_text() == LATER


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_record_that_the_disk_does_not_give_is_left_alone_and_read_the_next_time(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.save(record())

    def refuse(path: str, *arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code), path)

    with monkeypatch.context() as patch:
        patch.setattr(session_records, "open", refuse, raising=False)
        assert store.load() == {}
        assert (store.reserved, store.broken) == ({"bob": None}, ())
        with pytest.raises(InvalidState, match="cannot be read"):
            store.save(record())
    assert store.load() == {"bob": record()}
    assert store.reserved == {}


def test_every_record_that_was_set_aside_is_kept(store: RecordStore, tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        (tmp_path / "sessions/bob.json").write_text(text)
        store.load()
        assert store.broken == ("bob",)
    kept = {path.name: path.read_text() for path in (tmp_path / "sessions").glob("bob*")}
    assert kept == {"bob.json.broken": "one", "bob.json.broken-2": "two", "bob.json.broken-3": "three"}


def test_a_record_of_the_first_coworkd_is_read(store: RecordStore, tmp_path: Path) -> None:
    """Written down here for ever: format 1 as it was first, and with a field that a later coworkd may have added."""
    (tmp_path / "sessions/bob.json").write_text(
        """{"format": 1, "name": "bob", "uid": 1001, "gid": 1001, "profile": "default", "created_at": 5.5,
        "state": "ready", "folders": [{"name": "src", "source": "/srv/src", "mode": "ro"}],
        "limits": {"pids_max": 5}, "env": {"A": "1"}, "egress": {"network": {}}, "added": [1]}"""
    )
    found = store.load()["bob"]
    assert (found.uid, found.created_at, found.used_at, found.reown_from) == (1001, 5.5, 0.0, ())
    assert (found.folders, found.limits.pids_max, found.env) == ((folder("src"),), 5, {"A": "1"})


class FakeReserve:
    """Implements `ports.ReservePort`."""

    def __init__(self, disk: FullDisk) -> None:
        self.disk = disk
        self.given = 0

    def release(self) -> bool:
        self.given += 1
        if self.given > 1:
            return False
        self.disk.room = 1
        return True


class FullDisk:
    """Takes only so many new files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 0
        real = session_records._write_new

        def write(path: str, data: bytes) -> None:
            if not self.room:
                Path(path).write_bytes(b"")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= 1
            real(path, data)

        monkeypatch.setattr(session_records, "_write_new", write)


def test_a_record_is_replaced_on_a_full_disk(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(record())
    FullDisk(monkeypatch)
    store.save(FULL)
    assert store.load() == {"bob": FULL}


def test_the_spare_is_made_again_when_there_is_room(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(record())
    disk = FullDisk(monkeypatch)
    for number in range(3):
        store.save(record(env={"A": str(number)}))
        assert not (tmp_path / "sessions/.spare").exists()
        disk.room = 1
        store.load()
        assert (tmp_path / "sessions/.spare").stat().st_size == 16 * 1024
    assert store.load()["bob"].env == {"A": "2"}


def test_a_record_larger_than_the_spare_takes_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    reserve = FakeReserve(disk)
    store = RecordStore(str(tmp_path), reserve=reserve)
    disk.room = 2
    store.load()
    store.save(record())
    large = record(env={"A": "x" * 20_000})
    store.save(large)
    assert reserve.given == 1
    assert store.load() == {"bob": large}
    with pytest.raises(DiskFailed, match="No space left"):
        store.save(record(env={"A": "y" * 20_000}))
    assert store.load() == {"bob": large}


def test_a_new_session_gets_neither_spare_nor_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    reserve = FakeReserve(disk)
    store = RecordStore(str(tmp_path), reserve=reserve)
    disk.room = 1
    store.load()
    with pytest.raises(DiskFailed, match="No space left") as caught:
        store.save(record())
    assert caught.value.details["errno"] == errno.ENOSPC
    assert reserve.given == 0
    assert (tmp_path / "sessions/.spare").exists()


@pytest.mark.parametrize("step", ["rename", "pwrite", "ftruncate", "fsync"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_crash_while_the_spare_is_used_leaves_one_of_the_two(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    store.save(record())
    with monkeypatch.context() as full:
        FullDisk(full)
        crash_at(full, step, call=call)
        with contextlib.suppress(Crash):
            store.save(FULL)
    assert store.load() in ({"bob": record()}, {"bob": FULL})
    store.save(FULL)
    assert store.load() == {"bob": FULL}
