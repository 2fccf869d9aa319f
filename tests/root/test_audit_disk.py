"""The audit log on a disk that is really full: a tmpfs of 3 MiB."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.auditlog import RotationLimits, admit, verify
from coworkd.model.errors import DiskFailed
from coworkd.services.audit_files import AuditFiles, Entry

LIMITS = RotationLimits(file_bytes=256 * 1024, total_bytes=64 * 1024 * 1024, reserve_bytes=256 * 1024)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)), check=True)
    yield place
    subprocess.run(("umount", str(place)), check=True)


def fill(place: Path) -> int:
    """Take every free block; returns how many bytes that was."""
    taken = 0
    with open(place / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                taken += filler.write(b"\0" * 4096)
        except OSError:
            return taken


def commit(files: AuditFiles, name: str) -> None:
    fields = admit("process.start", {"session": name, "argv": ["x" * 1000]})
    files.commit([Entry(at=1.0, kind="process.start", fields=fields)])


def commit_until_refused(files: AuditFiles) -> int:
    """How many records the full disk still took."""
    written = 0
    while True:
        try:
            commit(files, "full")
        except DiskFailed:
            return written
        written += 1


@pytest.mark.needs("mountns")
def test_recording_goes_on_from_the_reserve_then_refuses_then_recovers(disk: Path) -> None:
    files = AuditFiles(disk / "audit", boot_id="b", limits=LIMITS)
    files.start(at=1.0, version="0")
    try:
        assert files.problems == {}
        assert fill(disk) > 0
        assert 100 < commit_until_refused(files) < 1000
        assert "reserve" in files.problems
        sealed = files.head
        os.unlink(disk / "filler")
        commit(files, "after")
        assert files.head.seq == sealed.seq + 1
        assert files.problems == {}
        assert (disk / "audit" / "reserve").stat().st_size == LIMITS.reserve_bytes
        snapshot = files.snapshot()
        verdict = verify(snapshot.chunks())
        snapshot.close()
        assert (verdict.problem, verdict.head) == (None, files.head.hash)
    finally:
        files.close()


@pytest.mark.needs("mountns")
def test_a_log_on_a_full_disk_does_not_open_in_silence(disk: Path) -> None:
    fill(disk)
    files = AuditFiles(disk / "audit", boot_id="b", limits=LIMITS)
    try:
        with pytest.raises(DiskFailed, match="cannot be"):
            files.start(at=1.0, version="0")
    finally:
        files.close()
