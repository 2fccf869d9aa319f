"""`system.fanotify`: events as bytes. What the kernel really says is seen by tests/root/test_activity_live.py."""

from __future__ import annotations

import struct

import pytest

from coworkd.system.fanotify import (
    FAN_CREATE,
    FAN_Q_OVERFLOW,
    FAN_RENAME,
    Entry,
    FanotifyEvent,
    Handle,
    file_system_id,
    parse_events,
)

FSID = b"fsid\0\1\2\3"


def _info(kind: int, name: bytes, data: bytes = b"12345678") -> bytes:
    body = FSID + struct.pack("=Ii", len(data), 1) + data + name + b"\0"
    body += bytes(-(len(body) + 4) % 4)
    return struct.pack("=BBH", kind, 0, len(body) + 4) + body


def _event(mask: int, *infos: bytes, version: int = 3, pid: int = 7) -> bytes:
    body = b"".join(infos)
    return struct.pack("=IBBHQii", 24 + len(body), version, 0, 24, mask, -1, pid) + body


def test_events_name_a_directory_and_an_entry() -> None:
    data = _event(FAN_CREATE, _info(2, b"a\n\xff")) + _event(FAN_CREATE, _info(2, b"b"), pid=8)
    handle = Handle(FSID, 1, b"12345678")
    assert list(parse_events(data)) == [
        FanotifyEvent(FAN_CREATE, 7, Entry(handle, b"a\n\xff"), None),
        FanotifyEvent(FAN_CREATE, 8, Entry(handle, b"b"), None),
    ]


def test_a_rename_has_both_names_whatever_else_is_said() -> None:
    (event,) = parse_events(_event(FAN_RENAME, _info(10, b"old"), _info(1, b""), _info(12, b"new")))
    assert event.entry is not None
    assert event.to is not None
    assert (event.entry.name, event.to.name) == (b"old", b"new")


def test_an_overflow_names_nothing() -> None:
    assert list(parse_events(_event(FAN_Q_OVERFLOW, pid=0))) == [FanotifyEvent(FAN_Q_OVERFLOW, 0, None, None)]


def test_another_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="version 4"):
        list(parse_events(_event(FAN_CREATE, version=4)))


def test_what_is_cut_off_is_left_out() -> None:
    data = _event(FAN_CREATE, _info(2, b"a"))
    assert list(parse_events(data[:20])) == []


def test_a_file_system_has_one_id() -> None:
    with open("/proc/self/stat", "rb") as one, open("/proc/self/status", "rb") as other:
        assert len(file_system_id(one.fileno())) == 8
        assert file_system_id(one.fileno()) == file_system_id(other.fileno())
