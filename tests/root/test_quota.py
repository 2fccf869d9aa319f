"""Project quota by a kernel that has it: a session's files are counted, and stop at its limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.services.storage_quota import ProjectQuota
from tests.root.disk_lab import MIB, DiskLab, disk_lab

pytestmark = pytest.mark.needs("quota", "loop", "mountns")
SESSION = 1001


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[DiskLab]:
    with disk_lab(tmp_path) as made:
        assert made.loop(tmp_path / "disk", 256 * MIB).quota
        yield made


def test_what_a_session_writes_is_counted_and_ends_at_its_limit(lab: DiskLab) -> None:
    home = lab.inside / "bob"
    home.mkdir()
    os.chown(home, SESSION, SESSION)
    quota = ProjectQuota(str(lab.inside), is_counted=lambda: True)
    assert quota.kind == "project"
    quota.set_limit(str(home), SESSION, 8 * MIB, 100)
    # By its working directory, because the directories above are root's alone.
    script = 'cd "$1" && setpriv --reuid 1001 --regid 1001 --clear-groups dd if=/dev/zero of=file bs=1M count=64 2>&1 || true'
    assert "quota" in lab.run("sh", "-c", script, "sh", str(lab.mount_point / "bob"))
    used, files = quota.usage(SESSION)
    assert 6 * MIB < used <= 8 * MIB
    assert files == 2
    quota.set_limit(str(home), SESSION, 0, 0)
