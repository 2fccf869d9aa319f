"""The audit log on disk: repair, rotation, a full and a failing disk, one writer."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coworkd.auditlog import RotationLimits, Verdict, admit, verify
from coworkd.auditlog.chain import parse_record
from coworkd.model.errors import DiskFailed, InvalidState
from coworkd.services.audit_files import AuditFiles, DiskCalls, Entry

SMALL = RotationLimits(file_bytes=2_000, total_bytes=6_000, reserve_bytes=4_096)


class FailingDisk(DiskCalls):
    """A disk with so many bytes left; `broken` names calls that fail with EIO, each entry once."""

    def __init__(self, left: int = 1 << 40) -> None:
        self.left = left
        self.reserved = 0
        self.broken: list[str] = []

    def _fail(self, call: str) -> None:
        if call in self.broken:
            self.broken.remove(call)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, fd: int, data: memoryview) -> int:
        self._fail("write")
        if self.left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        wrote = super().write(fd, data[: min(self.left, 100)])
        self.left -= wrote
        return wrote

    def fdatasync(self, fd: int) -> None:
        self._fail("fdatasync")

    def ftruncate(self, fd: int, length: int) -> None:
        self._fail("ftruncate")
        super().ftruncate(fd, length)

    def posix_fallocate(self, fd: int, length: int) -> None:
        if self.left < length:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def free_bytes(self, fd: int) -> int:
        return self.left


@contextmanager
def opened(
    directory: Path,
    *,
    limits: RotationLimits = SMALL,
    disk: DiskCalls | None = None,
    more_room: Callable[[], bool] = lambda: False,
) -> Iterator[AuditFiles]:
    files = AuditFiles(directory, boot_id="boot", limits=limits, disk=disk or FailingDisk(), more_room=more_room)
    try:
        files.start(at=1.0, version="0")
        yield files
    finally:
        files.close()


def commit(files: AuditFiles, *names: str) -> None:
    files.commit(
        [Entry(at=2.0, kind="session.pause", fields=admit("session.pause", {"session": name})) for name in names]
    )


def judge(directory: Path) -> Verdict:
    return verify((path.name, [path.read_bytes()]) for path in log_paths(directory))


def log_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("audit-*.jsonl"))


def records(directory: Path) -> list[dict[str, Any]]:
    return [parse_record(line) for path in log_paths(directory) for line in path.read_bytes().splitlines()]


def kinds(directory: Path) -> list[str]:
    return [record["kind"] for record in records(directory)]


def test_a_new_log_begins_with_its_opening(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "audit"):
        pass
    assert kinds(tmp_path / "deep" / "audit") == ["audit.opened"]


def test_everything_is_for_root_only(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    directory.mkdir(mode=0o755)
    with opened(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_the_chain_goes_on_over_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        commit(files, "a", "b")
    with opened(tmp_path) as files:
        commit(files, "c")
    assert judge(tmp_path).problem is None
    assert kinds(tmp_path) == ["audit.opened", "session.pause", "session.pause", "audit.opened", "session.pause"]


def test_a_second_writer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path):
        before = log_paths(tmp_path)[0].read_bytes()
        with pytest.raises(InvalidState, match="another coworkd"):
            AuditFiles(tmp_path, boot_id="b", limits=SMALL)
        assert log_paths(tmp_path)[0].read_bytes() == before
    with opened(tmp_path):
        assert judge(tmp_path).problem is None


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(DiskFailed):
        AuditFiles(tmp_path / "link", boot_id="b", limits=SMALL)


@pytest.mark.parametrize("length", [1, 10, 150, 400])
def test_a_torn_end_is_cut_off_and_told(tmp_path: Path, length: int) -> None:
    with opened(tmp_path) as files:
        commit(files, "a", "b")
    path = log_paths(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-length])
    torn = len(whole) - length - (whole[:-length].rfind(b"\n") + 1)
    with opened(tmp_path):
        pass
    found = [record for record in records(tmp_path) if record["kind"] == "audit.recovered"]
    assert [record["bytes"] for record in found] == [torn]
    assert judge(tmp_path).problem is None


def test_a_clean_end_is_not_told_as_recovered(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path):
            pass
    assert kinds(tmp_path) == ["audit.opened", "audit.opened"]


def test_a_crash_right_after_a_rotation_is_continued(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        commit(files, "a")
        seq = files.head.seq
    (tmp_path / f"audit-{seq + 1:020d}.jsonl").write_bytes(b"")
    with opened(tmp_path) as files:
        assert files.head.seq == seq + 1
    assert judge(tmp_path).problem is None


@pytest.mark.parametrize("damage", [b"not a record\n", b'{"seq":3}\n'])
def test_damage_at_the_end_stays_is_told_and_the_log_goes_on(tmp_path: Path, damage: bytes) -> None:
    with opened(tmp_path) as files:
        commit(files, "a")
    path = log_paths(tmp_path)[0]
    path.write_bytes(path.read_bytes() + damage)
    with opened(tmp_path) as files:
        commit(files, "b")
        assert "was changed" in files.problems["damage"]
    assert path.read_bytes().endswith(damage)
    newest = [parse_record(line)["kind"] for line in log_paths(tmp_path)[-1].read_bytes().splitlines()]
    assert newest == ["audit.damaged", "audit.opened", "session.pause"]
    assert str(judge(tmp_path).problem).startswith(f"{path.name} line 3: ")


def test_damage_of_the_only_record_does_not_reuse_its_file(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    path = log_paths(tmp_path)[0]
    path.write_bytes(b"x" + path.read_bytes())
    with opened(tmp_path):
        assert len(log_paths(tmp_path)) == 2
    assert judge(tmp_path).problem is not None


def test_rotation_keeps_the_chain_over_files(tmp_path: Path) -> None:
    with opened(tmp_path, limits=RotationLimits(file_bytes=1_000, total_bytes=1 << 30)) as files:
        for number in range(20):
            commit(files, f"s{number}")
    assert len(log_paths(tmp_path)) > 3
    assert judge(tmp_path).problem is None


def test_the_log_is_bounded_and_still_proves_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        for number in range(300):
            commit(files, f"s{number}")
        assert files.problems == {}
    verdict = judge(tmp_path)
    assert verdict.problem is None
    assert verdict.first > 1
    assert sum(path.stat().st_size for path in log_paths(tmp_path)) < SMALL.total_bytes + 2 * SMALL.file_bytes


def test_a_full_disk_is_met_by_the_reserve_and_told(tmp_path: Path) -> None:
    disk = FailingDisk()
    with opened(tmp_path, disk=disk) as files:
        disk.left = 50
        real_unlink = os.unlink

        def freeing(path: str, *, dir_fd: int) -> None:
            real_unlink(path, dir_fd=dir_fd)
            disk.left += SMALL.reserve_bytes

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "unlink", freeing)
            commit(files, "a")
        assert "reserve" in files.problems
        assert not (tmp_path / "reserve").exists()
        disk.left = 1 << 40
        commit(files, "b")
        assert files.problems == {}
        assert (tmp_path / "reserve").exists()
    assert kinds(tmp_path) == ["audit.opened", "session.pause", "audit.degraded", "session.pause"]
    assert judge(tmp_path).problem is None


def test_a_disk_full_beyond_the_reserve_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    disk = FailingDisk()
    with opened(tmp_path, disk=disk) as files:
        commit(files, "a")
        before, head = log_paths(tmp_path)[0].read_bytes(), files.head
        disk.left = 50
        with pytest.raises(DiskFailed, match="nothing is done without a record"):
            commit(files, "b", "c")
        assert (log_paths(tmp_path)[0].read_bytes(), files.head) == (before, head)
        disk.left = 1 << 40
        commit(files, "d")
    assert judge(tmp_path).problem is None
    assert [record.get("session") for record in records(tmp_path)] == [None, "a", "d"]


def test_what_is_given_up_is_asked_for_until_the_record_is_written(tmp_path: Path) -> None:
    disk = FailingDisk()
    given: list[int] = []

    def more_room() -> bool:
        given.append(1)
        disk.left = 40 * len(given)  # whoever filled the disk takes the most of the first steps
        return len(given) < 50

    with opened(tmp_path, disk=disk, more_room=more_room) as files:
        disk.left = 0
        commit(files, "a")
    assert 1 < len(given) < 50
    assert kinds(tmp_path) == ["audit.opened", "session.pause", "audit.degraded"]
    assert judge(tmp_path).problem is None


def test_a_record_for_which_no_room_is_given_any_more_is_refused(tmp_path: Path) -> None:
    disk = FailingDisk()
    steps = iter([True, True])
    with opened(tmp_path, disk=disk, more_room=lambda: next(steps, False)) as files:
        disk.left = 0
        with pytest.raises(DiskFailed, match="nor on its reserve"):
            commit(files, "a")
    assert kinds(tmp_path) == ["audit.opened"]


def test_blocks_for_the_records_to_come_are_there_before_them(tmp_path: Path) -> None:
    limits = RotationLimits(reserve_bytes=256 * 1024)
    with opened(tmp_path, limits=limits, disk=DiskCalls()) as files:
        commit(files, "a")
        (path,) = log_paths(tmp_path)
        found = path.stat()
        assert found.st_blocks * 512 >= 256 * 1024 > found.st_size
    assert judge(tmp_path).problem is None


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failing_disk_refuses_and_the_log_goes_on(tmp_path: Path, call: str) -> None:
    disk = FailingDisk()
    with opened(tmp_path, disk=disk) as files:
        disk.broken = [call]
        with pytest.raises(DiskFailed) as caught:
            commit(files, "lost")
        assert caught.value.details["errno"] == errno.EIO
        commit(files, "kept")
    assert judge(tmp_path).problem is None
    assert "lost" not in [record.get("session") for record in records(tmp_path)]


def test_a_write_that_cannot_be_undone_is_undone_before_the_next(tmp_path: Path) -> None:
    disk = FailingDisk()
    with opened(tmp_path, disk=disk) as files:
        disk.broken = ["fdatasync", "ftruncate"]
        with pytest.raises(DiskFailed):
            commit(files, "lost")
        assert "write" in files.problems
        disk.broken = ["ftruncate"]
        with pytest.raises(DiskFailed):
            commit(files, "lost too")
        commit(files, "kept")
        assert files.problems == {}
    assert judge(tmp_path).problem is None
    assert [record.get("session") for record in records(tmp_path)] == [None, "kept"]


def test_no_reserve_is_told_but_stops_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, disk=FailingDisk(left=2_000)) as files:
        assert "no reserve" in files.problems["reserve"]
        commit(files, "a")


def test_a_reserve_of_nothing_is_none(tmp_path: Path) -> None:
    with opened(tmp_path, limits=RotationLimits(reserve_bytes=0)) as files:
        commit(files, "a")
        assert files.problems == {}
    assert not (tmp_path / "reserve").exists()


def test_snapshot_survives_a_drop_and_ends_with_its_head(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        commit(files, "a")
        snapshot = files.snapshot()
        for number in range(200):
            commit(files, f"s{number}")
        assert not (tmp_path / snapshot.files[0][0]).exists()
        verdict = verify(snapshot.chunks())
        assert (verdict.problem, verdict.head) == (None, snapshot.head.hash)
        snapshot.close()
