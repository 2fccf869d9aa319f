"""Whether the disk can be used now: what is seen, and what it means."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coworkd.services import storage_mount
from coworkd.services.storage_mount import Facts, judge, look
from coworkd.system.mountinfo import MountEntry
from tests.unit.services.test_storage_room import room

DEVICE = os.makedev(7, 3)


def entry(device: int = DEVICE, *super_options: str, options: tuple[str, ...] = ("rw",)) -> MountEntry:
    return MountEntry(
        mount_id=40,
        device=device,
        root=b"/",
        mount_point=b"/sessions",
        options=options,
        kind="ext4",
        source=b"/dev/loop3",
        super_options=super_options or ("rw",),
    )


def lack(facts: Facts, mounted: int | None = DEVICE) -> str | None:
    problem = judge(facts, mounted=mounted)
    return None if problem is None else problem.lack


def test_a_disk_that_is_there_and_takes_a_write_is_as_it_should_be() -> None:
    assert lack(Facts(mount=entry(), device_bytes=1 << 20, room=room())) is None


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (Facts(mount=None, device_bytes=None, room=None), "gone"),
        (Facts(mount=entry(os.makedev(0, 9)), device_bytes=1 << 20, room=room()), "gone"),
        (Facts(mount=entry(), device_bytes=None, room=None), "gone"),
        (Facts(mount=entry(), device_bytes=999, room=room(), error="Input/output error"), "gone"),
        (Facts(mount=entry(DEVICE, "ro"), device_bytes=1 << 20, room=room()), "read_only"),
        (Facts(mount=entry(DEVICE, "rw", "emergency_ro"), device_bytes=1 << 20, room=room(), error="x"), "read_only"),
        (Facts(mount=entry(options=("ro",)), device_bytes=1 << 20, room=room()), "read_only"),
        (Facts(mount=entry(), device_bytes=1 << 20, room=room(), error="Input/output error"), "failing"),
    ],
)
def test_what_is_wrong_is_told_by_what_helps(facts: Facts, wanted: str) -> None:
    assert lack(facts) == wanted


def test_of_a_directory_only_its_file_system_is_looked_at(tmp_path: Path) -> None:
    facts = look(str(tmp_path), str(tmp_path), is_mount=False)
    assert (facts.mount, facts.device_bytes, facts.error) == (None, None, "")
    assert lack(facts, None) is None
    assert (tmp_path / "alive").read_text().strip().isdecimal()


def test_a_directory_that_cannot_be_written_is_failing(tmp_path: Path) -> None:
    facts = look(str(tmp_path), str(tmp_path / "missing"), is_mount=False)
    assert facts.error == os.strerror(errno.ENOENT)
    assert facts.room is not None
    assert lack(facts, None) == "failing"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_who_has_nothing_to_look_with_is_blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def nothing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    assert not look(str(tmp_path), str(tmp_path), is_mount=False).blind
    monkeypatch.setattr(storage_mount, "_touch", nothing)
    assert look(str(tmp_path), str(tmp_path), is_mount=False).blind
    monkeypatch.setattr(storage_mount, "read_mounts", nothing)
    assert look(str(tmp_path), str(tmp_path), is_mount=True).blind


def test_a_full_disk_is_not_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage_mount, "_touch", touch)
    assert lack(look(str(tmp_path), str(tmp_path), is_mount=False), None) is None


def test_where_nothing_is_mounted_nothing_is_written(tmp_path: Path) -> None:
    facts = look(str(tmp_path), str(tmp_path), is_mount=True)
    assert facts.mount is None
    assert not (tmp_path / "alive").exists()


@pytest.mark.parametrize(("text", "found"), [("2048\n", 1 << 20), ("0\n", None), ("", None), (None, None)])
def test_a_devices_size_comes_from_sysfs(tmp_path: Path, text: str | None, found: int | None) -> None:
    place = tmp_path / "dev/block/7:3"
    place.mkdir(parents=True)
    if text is not None:
        (place / "size").write_text(text)
    assert storage_mount._device_bytes(DEVICE, str(tmp_path)) == found
