"""Finding the update disk, in a sysfs of plain files."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.model.update import DISK_LABEL
from coworkd.release.refusal import ReleaseRefused
from coworkd.system import disk_tools
from coworkd.workers import update_disk
from coworkd.workers.update_disk import LIMIT_BYTES, UpdateDisk, find, may_be_there, mounted, mounted_disks

Signs = dict[str, dict[str, str]]


class Machine:
    """Disks by name."""

    def __init__(self, root: Path) -> None:
        self.sys, self.dev = root / "sys", root / "dev"
        (self.sys / "block").mkdir(parents=True)
        self.dev.mkdir()
        self._count = 0

    def add(
        self, name: str, *, serial: str = "", size: int = 64 << 20, parts: tuple[str, ...] = (), removable: bool = False
    ) -> None:
        place = self.sys / "block" / name
        place.mkdir()
        self._count += 1
        (place / "dev").write_text(f"251:{self._count}")
        (place / "size").write_text(str(size // 512))
        (place / "ro").write_text("0")
        (place / "removable").write_text(str(int(removable)))
        (place / "serial").write_text(serial)
        (self.dev / name).write_bytes(b"")
        for part in parts:
            (place / part).mkdir()
            (place / part / "partition").write_text("1")
            (self.dev / part).write_bytes(b"")

    def find(self, device: str = "") -> UpdateDisk | None:
        return find(DISK_LABEL, device, sys=str(self.sys), dev=str(self.dev))

    def may_be_there(self) -> bool:
        return may_be_there(sys=str(self.sys), dev=str(self.dev))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> Signs:
    known: Signs = {}
    monkeypatch.setattr(disk_tools, "blkid", lambda device: known.get(Path(device).name, {}))
    return known


def test_no_disk_is_none(machine: Machine, signs: Signs) -> None:
    assert machine.find() is None
    assert not machine.may_be_there()


def test_the_serial_number_names_it(machine: Machine, signs: Signs) -> None:
    machine.add("vda")
    machine.add("vdb", serial=DISK_LABEL)
    signs.update(vda={"TYPE": "ext4", "LABEL": "other"}, vdb={"TYPE": "squashfs"})
    found = machine.find()
    assert found is not None
    assert (Path(found.path).name, found.kind) == ("vdb", "squashfs")


def test_the_label_names_it_in_capitals_too(machine: Machine, signs: Signs) -> None:
    machine.add("sda", removable=True)
    signs["sda"] = {"TYPE": "vfat", "LABEL": "SMOL-BIN"}
    found = machine.find()
    assert found is not None
    assert found.kind == "vfat"
    assert machine.may_be_there()


def test_a_partition_can_be_it(machine: Machine, signs: Signs) -> None:
    machine.add("sda", parts=("sda1",))
    signs.update(sda={"PTTYPE": "gpt"}, sda1={"TYPE": "exfat", "LABEL": DISK_LABEL})
    found = machine.find()
    assert found is not None
    assert Path(found.path).name == "sda1"


def test_one_without_a_file_system_is_found_by_its_serial_and_told(machine: Machine, signs: Signs) -> None:
    machine.add("vdb", serial=DISK_LABEL)
    found = machine.find()
    assert found is not None
    with pytest.raises(ReleaseRefused, match="no file system"), mounted(found, b"/nowhere"):
        pytest.fail("it was mounted")


def test_an_unknown_file_system_is_told(signs: Signs) -> None:
    with (
        pytest.raises(ReleaseRefused, match="holds btrfs"),
        mounted(UpdateDisk(path="/dev/x", kind="btrfs"), b"/nowhere"),
    ):
        pytest.fail("it was mounted")


@pytest.mark.parametrize(
    "values",
    [{"serial": "cowork-sessions"}, {"serial": DISK_LABEL, "size": LIMIT_BYTES + 512}],
    ids=["session", "large"],
)
def test_what_it_cannot_be_is_not_looked_at(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, values: dict[str, object]
) -> None:
    machine.add("vdb", **values)  # type: ignore[arg-type]
    monkeypatch.setattr(disk_tools, "blkid", lambda device: pytest.fail("it was looked at"))
    assert machine.find() is None
    assert not machine.may_be_there()


def test_the_disk_of_the_root_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add("vda", serial=DISK_LABEL)
    monkeypatch.setattr(update_disk, "mounted_disks", lambda sys: frozenset({"vda"}))
    monkeypatch.setattr(disk_tools, "blkid", lambda device: pytest.fail("it was looked at"))
    assert machine.find() is None


def test_disks_that_are_mounted_are_known_by_their_numbers(machine: Machine, tmp_path: Path) -> None:
    machine.add("vda", parts=("vda1",))
    below = machine.sys / "dev" / "block"
    below.mkdir(parents=True)
    (below / "251:9").symlink_to(machine.sys / "block" / "vda" / "vda1")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("21 1 0:5 / /proc rw - proc proc rw\n22 1 251:9 / /run/lower ro - ext4 /dev/vda1 ro\n")
    assert mounted_disks(str(machine.sys), str(mountinfo)) == {"vda"}


def test_the_sessions_disk_alone_is_not_worth_a_process(machine: Machine) -> None:
    machine.add("vdb", serial="cowork-sessions")
    machine.add("nvme0n1", size=10 << 30)
    assert not machine.may_be_there()
    machine.add("sda", serial="whatever a stick has", removable=True)
    assert machine.may_be_there()
