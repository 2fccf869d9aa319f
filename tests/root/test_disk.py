"""The session disk for real: made on what is blank, repaired where it is ours, left alone where it is not, whole after every crash."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.model import disk
from coworkd.workers import disk_target
from coworkd.workers.disk_choice import Candidate, Refused
from coworkd.workers.disk_marker import compose_marker, file_system_bytes, marker_offset
from coworkd.workers.disk_steps import Steps
from tests.root.disk_lab import MIB, DiskLab, disk_lab, loop_device, make_file, overwrite
from tests.root.live import wait_until

pytestmark = pytest.mark.needs("loop", "mountns")
BIG = 256 * MIB
"""Large enough for a second group of blocks, and so for a copy of the superblock."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[DiskLab]:
    with disk_lab(tmp_path) as made:
        yield made


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(up: disk.BroughtUp) -> list[str]:
    return [step.name for step in up.steps]


def filled(tmp_path: Path, size: int = BIG) -> Path:
    """A loop disk with a file on it, in order unmounted."""
    with disk_lab(tmp_path) as lab:
        assert lab.loop(tmp_path / "disk", size).state == "ok"
        (lab.inside / "work").write_bytes(b"weeks of work\n" * 100_000)
        lab.unmount()
    return tmp_path / "disk"


def assert_work_is_there(lab: DiskLab) -> None:
    assert (lab.inside / "work").read_bytes() == b"weeks of work\n" * 100_000


def test_a_loop_disk_is_made_mounted_and_found_again(lab: DiskLab, tmp_path: Path) -> None:
    up = lab.loop(tmp_path / "disk")
    assert (up.state, up.kind, names(up)) == ("ok", "loop", ["make file", "grow file", "mkfs", "mount"])
    (line,) = [line for line in lab.run("cat", "/proc/self/mountinfo").splitlines() if str(lab.mount_point) in line]
    assert "rw,nosuid,nodev," in line
    assert f"resuid={disk.RESERVE_UID}" in line
    (lab.inside / "kept").write_text("yes")
    again = lab.loop(tmp_path / "disk")
    assert (again.state, names(again), again.device) == ("ok", ["found mounted"], up.device)
    lab.unmount()
    assert names(lab.loop(tmp_path / "disk")) == ["e2fsck -p", "mount"]
    assert (lab.inside / "kept").read_text() == "yes"


def test_a_part_of_the_disk_is_kept_from_sessions(lab: DiskLab, tmp_path: Path) -> None:
    lab.loop(tmp_path / "disk", reserve_percent=10.0)
    room = os.statvfs(lab.inside)
    # Beside the 10 percent there are 2 that ext4 keeps for itself.
    assert 0.1 <= (room.f_bfree - room.f_bavail) / room.f_blocks < 0.15


def test_nothing_is_left_of_a_worker_that_is_gone(tmp_path: Path) -> None:
    with disk_lab(tmp_path) as lab:
        device = os.fsdecode(lab.loop(tmp_path / "disk").device)

    def backing() -> str:
        return subprocess.run(("losetup", "--noheadings", device), capture_output=True, text=True, check=False).stdout

    # A mount namespace that has ended is taken down by the kernel a moment later.
    wait_until(lambda: str(tmp_path) not in backing(), "the loop device is given back")


# -- what is not blank is left alone -----------------------------------------------------------------------------


def _tool(*argv: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        subprocess.run((*argv, str(path)), check=True, capture_output=True)

    return make


def _bytes(offset: int, data: bytes) -> Callable[[Path], None]:
    return lambda path: overwrite(path, offset, data)


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "ext4 of another label": (_tool("mkfs.ext4", "-q", "-F", "-L", "photos"), "labelled 'photos'"),
    "ext4 without one": (_tool("mkfs.ext4", "-q", "-F"), "without a label"),
    "swap": (_tool("mkswap"), "swap"),
    "LUKS": (_bytes(0, b"LUKS\xba\xbe\x00\x01".ljust(592, b"\0")), "crypto_LUKS"),
    "XFS": (_bytes(0, b"XFSB\x00\x00\x10\x00"), "byte 0"),
    "vfat": (_bytes(0, b"\xeb\x58\x90mkfs.fat".ljust(82, b"\0") + b"FAT32   ".ljust(428, b"\0") + b"\x55\xaa"), ""),
    "a master boot record": (
        _bytes(446, b"\x80\0\0\0\x83\0\0\0\0\x08\0\0\0\x80\0\0".ljust(64, b"\0") + b"\x55\xaa"),
        "dos",
    ),
    "a GPT's copy at the end": (_bytes(64 * MIB - 512, b"EFI PART\0\0\1\0"), f"byte {64 * MIB - 512}"),
    "bytes in the middle": (_bytes(32 * MIB, b"x" * 600_000), "without a signature"),
    "one bit at the end": (_bytes(64 * MIB - 1, b"\x01"), f"byte {64 * MIB - 1}"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_blank_is_left_alone_and_told(lab: DiskLab, tmp_path: Path, what: str) -> None:
    write, said = FOREIGN[what]
    path = make_file(tmp_path / "disk", 64 * MIB)
    write(path)
    before = digest(path)
    up = lab.loop(path)
    assert up.state == "absent"
    assert "left as it is" in up.reason
    assert said in up.reason
    assert digest(path) == before
    found = lab.ask(disk.FindDisk(id=2, ask=lab.bring_up(kind="loop", loop_file=os.fsencode(path))))
    assert isinstance(found, disk.DiskFound)
    assert not found.found


def test_a_loop_file_is_not_grown_before_it_is_known_whose_it_is(lab: DiskLab, tmp_path: Path) -> None:
    path = make_file(tmp_path / "disk", 64 * MIB)
    overwrite(path, 64 * MIB - 512, b"EFI PART\0\0\1\0")
    before = digest(path)
    up = lab.loop(path, 100 * MIB)
    assert up.state == "absent"
    assert "left as it is" in up.reason
    assert digest(path) == before


@pytest.mark.parametrize("data", [b"", b"\0" * MIB, b"notes of somebody's"])
def test_a_small_file_is_grown_where_it_holds_nothing(lab: DiskLab, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "disk"
    path.write_bytes(data)
    up = lab.loop(path)
    assert up.state == ("absent" if data.strip(b"\0") else "ok")
    assert path.stat().st_size == (len(data) if up.state == "absent" else 64 * MIB)


def test_a_format_that_did_not_end_is_made_again_where_more_is_wanted_by_now(lab: DiskLab, tmp_path: Path) -> None:
    path = make_file(tmp_path / "disk", 64 * MIB)
    _in_mkfs(path)
    assert lab.loop(path, 100 * MIB).state == "ok"
    lab.unmount()
    again = lab.loop(path, 100 * MIB)
    assert (again.state, path.stat().st_size) == ("ok", 100 * MIB)


def test_a_disk_that_comes_into_use_between_the_look_and_the_format_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "disk", 64 * MIB)
    with loop_device(path) as device:
        look = disk_target.find_disk

        def use_it_then(ask: disk.BringUp) -> Candidate:
            found = look(ask)
            overwrite(Path(device), 4096, b"somebody's own")
            return found

        monkeypatch.setattr(disk_target, "find_disk", use_it_then)
        ask = disk.BringUp(id=1, kind="disk", mount_point=b"/none", label="cowork-sessions", device=os.fsencode(device))
        with pytest.raises(Refused, match="left as it is"), disk_target.open_disk(ask, Steps()):
            pytest.fail("it was taken")
        data = Path(device).read_bytes()
    assert (data.strip(b"\0"), data.find(b"somebody")) == (b"somebody's own", 4096)


def test_a_partition_table_over_our_own_file_system_is_left_alone(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    _bytes(446, b"\x80\0\0\0\x83\0\0\0\0\x08\0\0\0\x80\0\0".ljust(64, b"\0") + b"\x55\xaa")(path)
    before = digest(path)
    up = lab.loop(path, BIG)
    if up.state == "ok":  # one that blkid does not take for a table, over a file system that is whole, is none
        assert_work_is_there(lab)
    else:
        assert digest(path) == before


# -- a format that a power cut interrupts ------------------------------------------------------------------------


def _after_marker(path: Path) -> None:
    overwrite(path, marker_offset(64 * MIB), compose_marker(64 * MIB))


def _in_mkfs(path: Path) -> None:
    _after_marker(path)
    overwrite(path, 4096, os.urandom(300_000))


def _after_mkfs(path: Path) -> None:
    blocks = file_system_bytes(64 * MIB) // 4096
    command = ("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "cowork-sessions", str(path), str(blocks))
    subprocess.run(command, check=True, capture_output=True)
    _after_marker(path)


@pytest.mark.parametrize("crash", [_after_marker, _in_mkfs, _after_mkfs])
def test_a_format_that_did_not_end_is_made_again(lab: DiskLab, tmp_path: Path, crash: Callable[[Path], None]) -> None:
    path = make_file(tmp_path / "disk", 64 * MIB)
    crash(path)
    up = lab.loop(path)
    assert (up.state, names(up)) == ("ok", ["mkfs", "mount"])
    lab.unmount()
    assert names(lab.loop(path)) == ["e2fsck -p", "mount"]


def test_a_marker_is_worth_nothing_on_a_disk_that_was_mounted(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    overwrite(path, marker_offset(BIG), compose_marker(BIG))
    assert names(lab.loop(path, BIG)) == ["e2fsck -p", "mount"]
    assert_work_is_there(lab)


def test_a_marker_of_another_size_is_worth_nothing(lab: DiskLab, tmp_path: Path) -> None:
    path = make_file(tmp_path / "disk", 64 * MIB)
    overwrite(path, marker_offset(64 * MIB), compose_marker(128 * MIB))
    assert lab.loop(path).state == "absent"


# -- damage -------------------------------------------------------------------------------------------------------


def test_a_lost_superblock_is_taken_from_its_copy(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    overwrite(path, 0, bytes(4096))
    up = lab.loop(path, BIG)
    assert up.state == "ok"
    assert "was damaged and has been repaired" in up.reason
    assert up.report
    assert_work_is_there(lab)


def test_a_superblock_of_wrong_checksum_is_repaired(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    overwrite(path, 1024 + 0x3FC, b"\xff\xff\xff\xff")
    up = lab.loop(path, BIG)
    assert up.state == "ok", up
    assert_work_is_there(lab)


def test_lost_group_descriptors_are_repaired_with_a_report(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    overwrite(path, 4096, b"\xa5" * 4096)
    up = lab.loop(path, BIG)
    assert up.state == "ok", up
    assert names(up) == ["e2fsck -fn", "e2fsck -fy", "mount"]
    assert len(up.report) <= disk.REPORT_LIMIT_BYTES + 100
    assert_work_is_there(lab)


def test_what_a_quiet_repair_has_taken_away_is_told(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    for request in ("clri work", "ssv state 2"):  # an inode is lost, and the kernel has noticed
        subprocess.run(("debugfs", "-w", "-R", request, str(path)), check=True, capture_output=True)
    up = lab.loop(path, BIG)
    assert up.state == "ok"
    assert [(step.name, step.changed) for step in up.steps] == [("e2fsck -p", True), ("mount", False)]
    assert "Entry 'work'" in up.report
    assert "has been repaired" in up.reason


def test_what_cannot_be_repaired_is_not_mounted(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    overwrite(path, 1024 + 0x18, b"\x05\0\0\0")  # blocks of 32 KiB: nothing lies where it says
    up = lab.loop(path, BIG)
    assert up.state == "absent"
    assert up.reason


def test_a_small_disk_without_its_superblock_is_not_formatted(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path, 64 * MIB)
    overwrite(path, 0, bytes(2048))
    before = digest(path)
    assert lab.loop(path).state == "absent"
    assert digest(path) == before


def test_zeros_over_the_first_megabytes_do_not_make_our_disk_blank(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    overwrite(path, 0, bytes(8 * MIB))
    before = digest(path)
    up = lab.loop(path, BIG)
    assert up.state == "absent"
    assert "at the cost of what is on it" in up.reason
    assert up.report
    assert digest(path) == before


def test_a_disk_that_was_cut_short_is_left_alone_until_it_is_whole(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    tail = path.read_bytes()[200 * MIB :]
    os.truncate(path, 200 * MIB)
    up = lab.loop(path, 200 * MIB)
    assert up.state == "absent"
    assert "cut short" in up.reason
    overwrite(path, 200 * MIB, tail)
    assert lab.loop(path, BIG).state == "ok"
    assert_work_is_there(lab)


# -- who has it ---------------------------------------------------------------------------------------------------


def test_a_loop_file_in_use_is_refused_with_who_has_it(lab: DiskLab, tmp_path: Path) -> None:
    lab.loop(tmp_path / "disk")
    with disk_lab(tmp_path / "other") as second:
        up = second.loop(tmp_path / "disk")
    assert up.state == "absent"
    assert "is in use as /dev/loop" in up.reason
    assert f"pid {lab.pid}" in up.reason


def test_a_named_disk_is_made_and_in_use_refused(lab: DiskLab, tmp_path: Path) -> None:
    with loop_device(make_file(tmp_path / "disk", 64 * MIB)) as device:
        named = {"kind": "disk", "device": os.fsencode(device)}
        up = lab.up(**named)
        assert (up.state, up.kind, os.fsdecode(up.device)) == ("ok", "disk", device)
        with disk_lab(tmp_path / "other") as second:
            refused = second.up(**named)
        assert refused.state == "absent"
        assert f"{device} is in use: it is mounted on {lab.mount_point}" in refused.reason
        lab.unmount()


def test_a_disk_that_is_late_is_waited_for(lab: DiskLab, tmp_path: Path) -> None:
    with loop_device(make_file(tmp_path / "disk", 64 * MIB)) as device:
        late = threading.Timer(0.4, (tmp_path / "late").symlink_to, (device,))
        late.start()
        up = lab.up(kind="disk", device=os.fsencode(tmp_path / "late"), wait_s=20.0)
        late.join()
        assert up.state == "ok", up
        lab.unmount()


def test_a_loop_device_of_somebody_elses_is_no_disk_of_this_machine(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    with loop_device(path):
        # Only asked for: a machine of somebody who runs this may have a blank disk.
        found = lab.ask(disk.FindDisk(id=2, ask=lab.bring_up(kind="disk", label="no-such-label")))
    assert isinstance(found, disk.DiskFound)
    assert "loop" not in found.detail


def test_something_else_that_is_mounted_there_stays(lab: DiskLab, tmp_path: Path) -> None:
    lab.run("mount", "-t", "tmpfs", "none", str(lab.mount_point))
    up = lab.loop(tmp_path / "disk")
    assert (up.state, up.none_there) == ("absent", False)
    assert "tmpfs" in up.reason
    assert not (tmp_path / "disk").exists()


def test_no_disk_at_all_is_told_apart_from_one_that_is_refused(lab: DiskLab) -> None:
    up = lab.up(kind="disk", device=b"/dev/no-such-disk", wait_s=0.2)
    assert (up.state, up.none_there) == ("absent", True)


def test_a_disk_that_is_missing_once_is_not_replaced_by_an_empty_directory(lab: DiskLab, tmp_path: Path) -> None:
    with loop_device(make_file(tmp_path / "disk", 64 * MIB)) as device:
        link = tmp_path / "device"
        auto = {"kind": "auto", "device": os.fsencode(link)}
        before = lab.up(**auto)
        assert (before.state, before.none_there) == ("absent", True)
        link.symlink_to(device)
        assert lab.up(**auto).state == "ok"
        (lab.inside / "work").mkdir()
        lab.unmount()
        link.unlink()
        gone = lab.up(**auto)
        assert (gone.state, gone.none_there) == ("absent", False)
        assert "was here before" in gone.reason
        link.symlink_to(device)
        assert lab.up(**auto).state == "ok"
        assert (lab.inside / "work").is_dir()
        lab.unmount()


def test_sessions_that_a_disk_hides_are_told(lab: DiskLab, tmp_path: Path) -> None:
    (lab.mount_point / "work").mkdir()
    (lab.mount_point / ".coworkd").mkdir()
    up = lab.loop(tmp_path / "disk")
    assert up.state == "ok"
    assert "1 sessions that lie in" in up.reason


# -- room ---------------------------------------------------------------------------------------------------------


def test_a_larger_loop_file_is_grown_when_it_is_mounted(lab: DiskLab, tmp_path: Path) -> None:
    path = filled(tmp_path)
    up = lab.loop(path, 2 * BIG)
    assert up.state == "ok"
    assert "resize2fs" in names(up)
    room = os.statvfs(lab.inside)
    assert room.f_blocks * room.f_frsize > 1.8 * BIG
    assert_work_is_there(lab)


@pytest.mark.needs("sys-resource")
def test_a_mounted_loop_disk_grows_on_line(lab: DiskLab, tmp_path: Path) -> None:
    lab.loop(tmp_path / "disk", BIG)
    grown = lab.ask(disk.Grow(id=3, mount_point=os.fsencode(lab.mount_point), size=2 * BIG))
    assert isinstance(grown, disk.Grown)
    assert grown.after_bytes > 1.9 * grown.before_bytes


def test_a_loop_file_never_shrinks(lab: DiskLab, tmp_path: Path) -> None:
    lab.loop(tmp_path / "disk", BIG)
    refused = lab.ask(disk.Grow(id=3, mount_point=os.fsencode(lab.mount_point), size=64 * MIB))
    assert isinstance(refused, disk.DiskRefused)
    assert "never shrinks" in refused.message
    lab.unmount()
    lab.loop(tmp_path / "disk", 64 * MIB)
    assert (tmp_path / "disk").stat().st_size == BIG


def test_what_was_freed_is_given_back_to_the_host(lab: DiskLab, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    lab.loop(path, BIG)
    (lab.inside / "much").write_bytes(os.urandom(64 * MIB))
    os.sync()
    held = path.stat().st_blocks
    (lab.inside / "much").unlink()
    os.sync()
    trimmed = lab.ask(disk.Trim(id=3, mount_point=os.fsencode(lab.mount_point)))
    assert isinstance(trimmed, disk.Trimmed)
    assert trimmed.trimmed_bytes >= 64 * MIB
    assert path.stat().st_blocks < held / 2


def test_a_loop_file_on_a_full_host_is_refused_and_made_when_there_is_room(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    first = (f"mount -t tmpfs -o size=64K none {host}",)
    with disk_lab(tmp_path, first=first) as lab:
        up = lab.loop(host / "disk")
        assert up.state == "absent", up
        lab.run("mount", "-o", "remount,size=128M", str(host))
        again = lab.loop(host / "disk")
        assert (again.state, names(again)) == ("ok", ["mkfs", "mount"])
        lab.unmount()


def test_more_than_the_host_has_free_is_told(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    with disk_lab(tmp_path, first=(f"mount -t tmpfs -o size=32M none {host}",)) as lab:
        up = lab.loop(host / "disk", 64 * MIB)
        assert up.state == "ok"
        assert "less free than the loop disk may come to take" in up.reason
        lab.unmount()
