from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed
from coworkd.model.policy import LimitsRequest
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
    store.save(record())
    assert store.load() == {"bob": record()}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 2, "name": "bob", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "eve", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 0, "gid": 0, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 1001, "gid": 0, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 60000, "gid": 60000, "profile": "p", "created_at": 1, "state": "ready"}',
        '{"format": 1, "name": "bob", "uid": 1001, "gid": 1001, "profile": "p", "created_at": 1, "state": "odd"}',
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
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
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
