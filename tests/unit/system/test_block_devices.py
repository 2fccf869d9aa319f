"""Block devices, as a sysfs of plain files tells them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from coworkd.system.block_devices import disks_below, read_disks, size_of


class FakeSys:
    """Just enough of /sys: devices below `devices/`, links to them in `block/` and `dev/block/`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._minor = 0
        for directory in ("block", "dev/block", "devices"):
            (place / directory).mkdir(parents=True)

    def disk(self, name: str, size_bytes: int = 1 << 30, **files: str | bytes) -> Path:
        device = self.place / "devices" / name
        self._make(device, size_bytes, {"ro": "0", "removable": "0", **files})
        (self.place / "block" / name).symlink_to(device)
        return device

    def partition(self, disk: Path, name: str) -> Path:
        self._make(disk / name, 1 << 20, {"partition": "1"})
        return disk / name

    def _make(self, device: Path, size_bytes: int, files: dict[str, str | bytes]) -> None:
        self._minor += 1
        number = f"8:{self._minor}"
        for name, text in {"dev": number, "size": str(size_bytes // 512), **files}.items():
            path = device / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
        (self.place / "dev" / "block" / number).symlink_to(device)


@pytest.fixture
def sys(tmp_path: Path) -> FakeSys:
    return FakeSys(tmp_path / "sys")


def number_of(device: Path) -> int:
    major, _, minor = (device / "dev").read_text().strip().partition(":")
    return os.makedev(int(major), int(minor))


def test_a_disk_is_told_with_all_that_matters(sys: FakeSys) -> None:
    device = sys.disk("vdb", 1 << 30, serial="cowork-sessions", ro="1", removable="1")
    sys.partition(device, "vdb1")
    (device / "holders" / "dm-0").mkdir(parents=True)
    (disk,) = read_disks(str(sys.place))
    assert (disk.name, disk.path, disk.number, disk.size_bytes) == ("vdb", b"/dev/vdb", number_of(device), 1 << 30)
    assert (disk.serial, disk.read_only, disk.removable) == ("cowork-sessions", True, True)
    assert disk.users == ("vdb1", "dm-0")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("vda", {"serial": "mine"}),
        ("nvme0n1", {"device__serial": "mine                "}),
        ("sda", {"device__vpd_pg80": b"\x00\x80\x00\x08mine    "}),
    ],
)
def test_a_serial_number_is_found_where_each_bus_has_it(sys: FakeSys, name: str, files: dict[str, Any]) -> None:
    sys.disk(name, **files)
    assert [disk.serial for disk in read_disks(str(sys.place))] == ["mine"]


@pytest.mark.parametrize("name", ["loop0", "ram1", "zram0", "dm-0", "md127", "sr0", "fd0", "nbd3"])
def test_what_nobody_attaches_for_us_is_no_disk(sys: FakeSys, name: str) -> None:
    sys.disk(name)
    assert read_disks(str(sys.place)) == []


def test_a_drive_without_a_medium_or_that_goes_meanwhile_is_left_out(sys: FakeSys) -> None:
    sys.disk("sda", 0)
    (sys.disk("sdb") / "ro").unlink()
    sys.disk("sdc")
    assert [disk.name for disk in read_disks(str(sys.place))] == ["sdc"]


def test_a_slash_in_a_name_is_one_in_its_path(sys: FakeSys) -> None:
    sys.disk("cciss!c0d0")
    assert [disk.path for disk in read_disks(str(sys.place))] == [b"/dev/cciss/c0d0"]


def test_the_disks_below_a_partition_and_below_a_mapped_device_are_found(sys: FakeSys) -> None:
    first, second = sys.disk("vda"), sys.disk("vdb")
    part = sys.partition(first, "vda2")
    mapped = sys.disk("dm-0")
    for below in (part, second):
        (mapped / "slaves").mkdir(exist_ok=True)
        (mapped / "slaves" / below.name).symlink_to(below)
    assert disks_below(number_of(part), str(sys.place)) == {"vda"}
    assert disks_below(number_of(mapped), str(sys.place)) == {"vda", "vdb", "dm-0"}


def test_below_what_is_no_block_device_there_is_none(sys: FakeSys) -> None:
    assert disks_below(os.makedev(0, 33), str(sys.place)) == frozenset()


def test_the_size_of_a_plain_file_is_its_length(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 700)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert size_of(fd) == 700
    finally:
        os.close(fd)
